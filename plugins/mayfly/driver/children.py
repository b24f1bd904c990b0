"""The supervisor's two children, and what they say: output, the host's messages, the workers' output."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mayfly.contract import JobOrder, to_json
from mayfly.driver import environment
from mayfly.driver.evidence import Evidence
from mayfly.driver.logbook import Logbook
from mayfly.driver.loop import Lines, Loop

LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel allows 108."""

HOST = "from mayfly.driver.host import main; main()"
"""Not `-m`: Python would import the module in every worker anew, as the main module of whoever started it."""


class Children:
    """Starts host and script, each in a session of its own. `answers` holds the host's last message per event."""

    def __init__(self, *, order: JobOrder, scratch: Path, loop: Loop, log: Logbook, evidence: Evidence) -> None:
        self._order, self._scratch, self._loop, self._log, self._evidence = order, scratch, loop, log, evidence
        self.host: subprocess.Popen[bytes] | None = None
        self.script: subprocess.Popen[bytes] | None = None
        self.early: subprocess.Popen[bytes] | None = None
        """The script's Python before it may run the script."""
        self._go = -1
        self.answers: dict[str, dict[str, Any]] = {}
        self.quiet = False
        """Set when we end Dask: what it says then is of no use to anybody."""
        self._control: socket.socket | None = None
        self._base: dict[str, str] = {}
        self._socket_folder: str | None = None

    @property
    def host_lives(self) -> bool:
        return self.host is not None and self.host.poll() is None

    @property
    def script_lives(self) -> bool:
        return self.script is not None and self.script.poll() is None

    def running(self) -> set[int]:
        """Pids of those that have not ended; asking collects those that have."""
        children = (self.host, self.script, self.early)
        return {child.pid for child in children if child is not None and child.poll() is None}

    # ------------------------------------------------------------ starting

    def start_host(self, job: Path, *, staging: str) -> None:
        """`job` is the unpacked folder of the job, `staging` the address of the store."""
        order, folder = self._order, self._scratch
        dask_config, worker_file, settings = folder / "dask.yaml", folder / "worker.json", folder / "host.json"
        environment.write_dask_settings(order, dask_config)
        self._base = environment.base_environment(order, job=job, dask_config=dask_config, ambient=os.environ)
        output = self._listen_to_workers()
        _write_private(worker_file, {"env": dict(order.env), "folder": str(job), "output": output})
        _write_private(
            settings,
            {
                "order": to_json(order),
                "staging": staging,
                "folder": str(folder),
                "job": str(job),
            },
        )
        ours, theirs = socket.socketpair()
        with theirs:
            self.host = subprocess.Popen(
                [sys.executable, "-c", HOST, str(settings), str(theirs.fileno())],
                cwd=job,
                env=self._base | {"MAYFLY_WORKER_FILE": str(worker_file), "MAYFLY_SUPERVISOR": str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._control = ours
        self._loop.read_lines(ours, Lines(self._hear))
        self._loop.read_lines(self.host.stdout, Lines(lambda block: self._add("host", block, prefix="[scheduler] ")))

    def start_early(self, job: Path, script: Path) -> None:
        """Start the script's Python, which imports Dask and waits; `start_script` lets it go."""
        complete = environment.script_environment(self._base, order=self._order, job=job)
        theirs, self._go = os.pipe()
        with contextlib.suppress(OSError):  # then it starts when its time has come
            variables = environment.early_environment(complete, script=script, go=theirs)
            self.early = self._python(job, script, variables, pass_fds=[theirs])
        os.close(theirs)

    def start_script(self, job: Path, script: Path) -> None:
        ready = self.answers["ready"]
        complete = environment.script_environment(self._base, order=self._order, job=job)
        cluster = environment.cluster_environment(order=self._order, address=ready["address"], tls=ready["tls"])
        if self._let_go({"PYTHONPATH": complete["PYTHONPATH"], **cluster}):
            self.script, self.early = self.early, None
        else:
            self.script = self._python(job, script, complete | cluster)

    def end_early(self) -> None:
        """It has waited in vain."""
        if self._go >= 0:
            os.close(self._go)
            self._go = -1
        if self.early is not None:
            self.early.kill()
            self.early.wait()

    def _python(
        self, job: Path, script: Path, variables: dict[str, str], *, pass_fds: Collection[int] = ()
    ) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, str(script), *self._order.args],
            cwd=job,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._loop.read_lines(child.stdout, Lines(lambda block: self._log.add("script", block)))
        return child

    def _let_go(self, variables: dict[str, str]) -> bool:
        """False when there is nobody waiting: it was not started, or has died."""
        if self.early is None or self.early.poll() is not None:
            return False
        with contextlib.suppress(BrokenPipeError), open(self._go, "wb") as pipe:
            self._go = -1
            pipe.write(json.dumps(variables).encode())
            pipe.flush()
            return True
        return False

    # ------------------------------------------------------------ speaking

    def tell(self, command: str) -> None:
        """Send the host a command; its answer will be in `answers` under the command's name."""
        self.answers.pop(command, None)
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"do": command}).encode() + b"\n")

    def signal_script(self, number: signal.Signals) -> None:
        """To the script's whole session."""
        if self.script is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.script.pid, number)

    def ask_script_for_stacks(self) -> bool:
        """Our sitecustomize has asked faulthandler to answer SIGUSR1; a process that has not would die of it."""
        if self.script is None or not self.script_lives or not _catches(self.script.pid, signal.SIGUSR1):
            return False
        os.kill(self.script.pid, signal.SIGUSR1)
        return True

    def close(self) -> None:
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    # ------------------------------------------------------------ hearing

    def _listen_to_workers(self) -> str:
        """The address to which workers connect their output."""
        path = self._scratch / "out"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            listener.bind(str(path))
        elif sys.platform == "linux":  # a long path by a short name; the preload does the same
            folder = os.open(self._scratch, os.O_RDONLY | os.O_DIRECTORY)
            listener.bind(f"/proc/self/fd/{folder}/out")
            os.close(folder)
        else:
            self._socket_folder = tempfile.mkdtemp(prefix="mayfly-")
            path = Path(self._socket_folder) / "out"
            listener.bind(str(path))
        listener.listen(128)
        self._loop.accept(listener, self._welcome)
        return str(path)

    def _welcome(self, line: socket.socket) -> None:
        name = ""

        def emit(block: bytes) -> None:
            nonlocal name
            if not name:
                first, _, block = block.partition(b"\n")
                name = first.decode("utf-8", "replace")
            if block:
                self._add("worker", block, prefix=f"[{name}] ")

        self._loop.read_lines(line, Lines(emit))

    def _add(self, source: str, block: bytes, *, prefix: str) -> None:
        if not self.quiet:
            self._log.add(source, block, prefix=prefix)

    def _hear(self, block: bytes) -> None:
        for line in block.splitlines():
            try:
                message = json.loads(line)
                event = message.pop("event")
            except (ValueError, KeyError, AttributeError, TypeError):
                continue  # the host runs user code, which may write anything anywhere
            if event == "sample":
                self._evidence.host = message
            elif event == "worker lost":
                self._lost(message)
            elif event == "output":
                self._add("worker", str(message.get("text")).encode(), prefix=f"[worker {message.get('worker')}] ")
            elif event == "say":
                self._log.say(str(message.get("text")))
            elif event == "waiting":
                self._evidence.waiting = str(message.get("text"))
            elif event == "account":
                self._evidence.account = message.get("account")
            elif event == "worker exit":
                self._evidence.worker_exits.append(str(message.get("text")))
            else:
                self.answers[event] = message

    def _lost(self, message: dict[str, Any]) -> None:
        if self.quiet:
            return
        self._evidence.workers_lost += 1
        results = message.get("results")
        more = f"; {results} results are computed anew" if results else ""
        self._log.say(f"lost the worker at {message.get('worker')}{more}")


def _write_private(path: Path, value: object) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            mask = next(line.split()[1] for line in file if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(mask, 16) >> (number - 1) & 1)
