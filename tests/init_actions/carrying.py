"""Start the real carrier on a run directory in a temporary folder, as a plain process or below something else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mayfly.contract import Record
from mayfly.staging.bundle import upload_bundle
from mayfly.staging.rundir import AttemptDir, RunDir
from mayfly.staging.stores import open_store
from tests.driver.driving import CLUSTER, PATIENCE, command_line, make_order

ROOT = Path(__file__).resolve().parents[2]
CARRIER = ROOT / "init_actions" / "carrier.py"
MARK = "MAYFLY_TEST_CARRIED"


@dataclass
class Carried:
    """What was started, and the attempt that its driver works on."""

    process: subprocess.Popen[str]
    attempt: AttemptDir
    mark: str

    def everyone(self) -> list[psutil.Process]:
        """All processes that stem from this start, whoever their parents are now."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                pass
        return found

    def one(self, word: str, *, by: str) -> psutil.Process:
        """The process of this program (`python`, say) that runs this file, in its first role."""
        for process in self.everyone():
            line = command_line(process)
            if any(part.endswith(word) for part in line) and "--driver" not in line and _name(process).startswith(by):
                return process
        raise AssertionError(f"no {by} runs {word}; log:\n{self.log()}")

    def wait(self, done: Callable[[], Any], *, timeout: float = PATIENCE) -> Any:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if value := done():
                return value
            time.sleep(0.1)
        raise AssertionError(f"waited {timeout} s in vain; log:\n{self.log()}")

    def log(self) -> str:
        parts, number = [], 0
        while (part := self.attempt.log_segment(number)) is not None:
            parts.append(part)
            number += 1
        return b"".join(parts).decode()

    def wait_for_line(self, text: str) -> None:
        self.wait(lambda: text in self.log())

    def record(self) -> Record:
        return self.wait(self.attempt.record)

    def wait_until_gone(self) -> None:
        self.wait(lambda: not self.everyone())

    def end(self) -> None:
        for process in self.everyone():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                pass
        self.process.wait(PATIENCE)
        if self.process.stdout:
            self.process.stdout.close()


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


@dataclass
class Carrying:
    """Makes run directories with their code, and starts carriers on them."""

    folder: Path
    started: list[Carried]

    def start(
        self,
        script: str,
        *,
        through: Sequence[str] = (sys.executable,),
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        staging: str = "",
        **order: Any,
    ) -> Carried:
        """`through` = what runs a Python file: an interpreter, or spark-submit with its options."""
        folder = self.folder / f"carried-{len(self.started)}"
        code = folder / "job"
        code.mkdir(parents=True)
        (code / "job.py").write_text(script)
        store = open_store(staging or f"file://{folder / 'staging'}")
        attempt = RunDir(store, CLUSTER).attempt(order.get("job", "run_job"), 1)
        order.setdefault("code", upload_bundle(store, code))
        made = make_order(**order)
        attempt.create("job.json", made)
        mark = f"{os.getpid()}-{time.monotonic_ns()}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "DASK_", "COV_"))}
        (folder / "tmp").mkdir()
        temporary = {"TMPDIR": str(folder / "tmp"), "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={folder / 'tmp'}"}
        with (folder / "stderr").open("w") as errors:
            process = subprocess.Popen(
                [*through, str(CARRIER), "--python", python, attempt.rundir.url, made.job, "1", made.code],
                env=kept | temporary | {MARK: mark, "PYTHONPATH": "/nowhere"} | dict(env or {}),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        carried = Carried(process=process, attempt=attempt, mark=mark)
        self.started.append(carried)
        return carried

    def errors(self, carried: Carried) -> str:
        return (self.folder / f"carried-{self.started.index(carried)}" / "stderr").read_text()

    def left_over(self, carried: Carried) -> list[str]:
        """Names of temporary files of this start that are still there."""
        folder = self.folder / f"carried-{self.started.index(carried)}" / "tmp"
        return sorted(path.name for path in folder.iterdir() if path.name.startswith("mayfly"))

    def end(self) -> None:
        for carried in self.started:
            carried.end()


PRINTS_ITS_WORLD = f"""
import json, os, sys
print("WORLD " + json.dumps([sys.executable, sys.path, sorted(os.environ)]))
assert os.environ[{MARK!r}]
"""


def world(log: str) -> tuple[str, list[str], list[str]]:
    """Interpreter, path and variables of a script that was `PRINTS_ITS_WORLD`."""
    line = next(line for line in log.splitlines() if line.startswith("WORLD "))
    executable, path, variables = json.loads(line.removeprefix("WORLD "))
    return executable, path, variables
