"""Loaded by every Dask worker, first or late: sets `env:`, the path and the working folder, and catches its output.

One file of its own (Dask copies it), so it imports nothing of Mayfly. Its settings are in the JSON file named by
MAYFLY_WORKER_FILE: never in the environment itself, since some launchers expand `$()` there.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
import os
import socket
import sys
import threading
from typing import Any


def _settings() -> dict[str, Any]:
    path = os.environ.get("MAYFLY_WORKER_FILE")
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:
        settings: dict[str, Any] = json.load(file)
    return settings


LONGEST_LINE = 600
"""Characters of one line of Dask's in the job's log: the scheduler names every task that went with a worker."""


class ShortLines(logging.Formatter):
    """As another formatter, with long lines cut."""

    def __init__(self, whole: logging.Formatter) -> None:
        super().__init__()
        self.whole = whole

    def format(self, record: logging.LogRecord) -> str:
        lines = self.whole.format(record).split("\n")
        return "\n".join(
            line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}... ({len(line)} characters)"
            for line in lines
        )


def quiet_dask() -> None:
    """Dask's chatter below WARNING goes to its own logs (kept at the end), not into the job's log; unless the job has
    set `logging.distributed` in its Dask settings."""
    import dask

    if "distributed" not in dask.config.get("logging", {}):
        for handler in logging.getLogger("distributed").handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.WARNING)
                handler.setFormatter(ShortLines(handler.formatter or logging.Formatter()))


_SETTINGS = _settings()
os.environ.update(_SETTINGS.get("env", {}))
if folder := _SETTINGS.get("folder"):
    os.chdir(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)


if _SETTINGS:
    quiet_dask()


def dask_setup(server: Any) -> None:
    """Called in each worker and, where a launcher asks for it, in its nanny. Output of the worker's process, also of C
    code and of children, goes to the supervisor as `[worker 3] ...`: by a socket on this machine, by the nanny and
    Dask's own comm from another one."""
    output = _SETTINGS.get("output")
    if output == "comm":
        if type(server).__name__ == "Nanny":
            global _courier
            _courier = Courier(server)
            _watch_notice(server)
        _keep_log(_SETTINGS.get("log"))
    elif output:
        _connect_output(server, output)


async def dask_teardown(server: Any) -> None:
    if _leaving is not None and _leaving.nanny is server:
        _leaving.close()
    if _courier is not None and _courier.nanny is server:
        await _courier.close()


def _connect_output(worker: Any, address: str) -> None:
    """A socket and not a pipe of our own: what was written before a sudden death is still read."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if len(os.fsencode(address)) > 100:  # the kernel allows 108 bytes: a long path by a short name
        folder = os.open(os.path.dirname(address), os.O_RDONLY | os.O_DIRECTORY)
        line.connect(f"/proc/self/fd/{folder}/{os.path.basename(address)}")
        os.close(folder)
    else:
        line.connect(address)
    line.sendall(f"worker {worker.name}\n".encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(line.fileno(), 1)
    os.dup2(line.fileno(), 2)
    line.close()
    _flush_lines()


def _flush_lines() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(line_buffering=True, errors="backslashreplace")


def _keep_log(path: str | None) -> None:
    """Dask's own log, from INFO on, into a file that the nanny sends on."""
    if not path:
        return
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
    logging.getLogger("distributed").addHandler(handler)


_EXITS = ("killed by", "exited with status", "memory budget", "Restarting")
BLOCK_BYTES = 8 << 10
"""Of one message; the supervisor reads lines of 64 KiB, and JSON may need six bytes for one."""
WAITING_BYTES = 1 << 20
"""Of output that waits for the driver; then the worker waits, too, and after `PATIENCE` seconds output is left out."""
PATIENCE = 2.0


class Courier:
    """In the nanny: reads what the worker's process writes, and brings it to the scheduler.

    The nanny's, because it outlives its worker: what was said right before a sudden death is in the pipe. A copy goes
    to the container's own log file. The nanny writes into the same pipe, so its reader must never wait for ever.
    """

    def __init__(self, nanny: Any) -> None:
        self.nanny = nanny
        self._blocks: collections.deque[bytes] = collections.deque()
        self._waiting = self._left_out = 0
        self._room = threading.Condition()
        self._exits: collections.deque[str] = collections.deque()
        self._log_place = 0
        self._closing = False
        source, sink = os.pipe()
        _flush_lines()  # before: a stream that was a file and has become a pipe refuses ("Illegal seek")
        self._original = os.dup(2)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.close(sink)
        threading.Thread(target=self._read, args=(source,), name="mayfly-output", daemon=True).start()
        courier = self

        class Exits(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                text = record.getMessage()
                if any(words in text for words in _EXITS):
                    courier._exits.append(text)

        logging.getLogger("distributed.nanny").addHandler(Exits())
        self._task = asyncio.ensure_future(self._carry())

    async def close(self) -> None:
        """What is there is still sent."""
        self._closing = True
        with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(self._task, 2)

    def _read(self, source: int) -> None:
        rest = b""
        while data := os.read(source, 64 << 10):
            with contextlib.suppress(OSError):
                os.write(self._original, data)
            whole, newline, end = data.rpartition(b"\n")
            if not newline and len(rest) < BLOCK_BYTES:
                rest += data
                continue
            block, rest = (rest + whole, end) if newline else (rest + data, b"")
            with self._room:
                if self._waiting > WAITING_BYTES:
                    self._room.wait_for(lambda: self._waiting <= WAITING_BYTES, PATIENCE)
                if self._waiting > WAITING_BYTES:
                    self._left_out += len(block)
                else:
                    self._blocks.append(block)
                    self._waiting += len(block)

    def _next(self) -> str:
        with self._room:
            if not self._blocks:
                return ""
            block = self._blocks.popleft()
            if len(block) > BLOCK_BYTES:
                cut = block.rfind(b"\n", 0, BLOCK_BYTES) + 1 or BLOCK_BYTES
                self._blocks.appendleft(block[cut:])
                block = block[:cut]
            self._waiting -= len(block)
            self._room.notify_all()
            left_out, self._left_out = self._left_out, 0
        text = block.decode("utf-8", "backslashreplace").rstrip("\n")
        return f"({left_out:,} bytes left out here)\n{text}" if left_out else text

    async def _carry(self) -> None:
        name, scheduler = str(self.nanny.name), self.nanny.scheduler
        while True:
            closing = self._closing
            try:
                while text := self._next():
                    await scheduler.mayfly_output(name=name, text=text)
                while self._exits:
                    await scheduler.mayfly_exit(name=name, text=self._exits.popleft())
                if text := self._new_log():
                    await scheduler.mayfly_log(name=name, text=text)
                    continue
            except (OSError, RuntimeError):  # no scheduler: there is nobody to tell
                await asyncio.sleep(1)
            if closing:
                return
            await asyncio.sleep(0.1)

    def _new_log(self) -> str:
        try:
            with open(_SETTINGS["log"], "rb") as file:
                file.seek(self._log_place)
                data = file.read(64 << 10)
        except (OSError, KeyError):
            return ""
        self._log_place += len(data)
        return data.decode("utf-8", "backslashreplace")


_courier: Courier | None = None


# ---------------------------------------------------------------- nodes that are taken away

AGAIN_SECONDS = 3.0
"""Between two requests to leave: results that have nowhere to go now may find a place later."""


def _watch_notice(nanny: Any) -> None:
    """Only where the node's set-up says that its cloud may take it away, and says so beforehand."""
    global _leaving
    try:
        with open(os.environ.get("MAYFLY_READY_FILE") or "/opt/mayfly/ready.json", encoding="utf-8") as file:
            cloud = json.load(file).get("notice")
    except (OSError, ValueError, AttributeError):
        return
    if cloud == "google":
        _leaving = Leaving(nanny)


class Leaving:
    """In the nanny: when the node is to be taken away (Google: 30 s later), asks the scheduler to retire the worker."""

    def __init__(self, nanny: Any) -> None:
        self.nanny = nanny
        self._noticed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait() -> None:
            _await_preemption()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._noticed.set)

        threading.Thread(target=wait, name="mayfly-notice", daemon=True).start()
        self._task = asyncio.ensure_future(self._leave())

    def close(self) -> None:
        self._task.cancel()

    async def _leave(self) -> None:
        await self._noticed.wait()
        while True:
            with contextlib.suppress(OSError, RuntimeError):  # no answer: asked again
                await self.nanny.scheduler.mayfly_leaving(name=str(self.nanny.name), host=socket.gethostname())
            await asyncio.sleep(AGAIN_SECONDS)


def _await_preemption() -> None:
    """Until the metadata server says TRUE; each question waits there for a change.
    https://cloud.google.com/compute/docs/instances/create-use-preemptible#detecting_if_a_vm_was_preempted"""
    import time
    import urllib.request
    from http.client import HTTPException

    host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    known = ""
    while True:
        query = f"?wait_for_change=true&timeout_sec=60&last_etag={known}" if known else ""
        asked = urllib.request.Request(
            f"http://{host}/computeMetadata/v1/instance/preempted{query}", headers={"Metadata-Flavor": "Google"}
        )
        try:
            with opener.open(asked, timeout=90) as answer:
                known = answer.headers.get("ETag") or ""
                if answer.read().strip() == b"TRUE":
                    return
        except (OSError, HTTPException):
            known = ""
        if not known:
            time.sleep(5)


_leaving: Leaving | None = None
