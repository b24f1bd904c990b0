"""A daemon known by its pid *and* the time it started: a pid alone may be somebody else's by now."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

_KILL_AFTER = 10.0
"""Seconds a daemon gets to end by SIGTERM."""


def started(pid: int) -> str | None:
    """When a process started, in the system's own terms; None when there is no such process, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # Fields 3 (state) and 22 (start in ticks since boot) of proc(5).
    return None if stat[0] in "ZX" else stat[19]


class Daemon:
    """One process of the cluster, kept in `<folder>/pids/<name>.json`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.file = folder / "pids" / f"{name}.json"
        self.log = folder / "logs" / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, argv: list[str], env: dict[str, str]) -> None:
        with open(self.log, "ab") as log:
            # Its own session: a Ctrl-C at the terminal is for the one who asked, not for the cluster.
            self._child = subprocess.Popen(
                argv, env=env, cwd=self.log.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        pid = self._child.pid
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps({"pid": pid, "started": started(pid)}))
        beside.replace(self.file)

    @property
    def pid(self) -> int | None:
        """Its pid while it runs, else None."""
        if self._child is not None:
            # Ours: nobody else can have its pid before we have reaped it.
            return self._child.pid if self._child.poll() is None else None
        try:
            known = json.loads(self.file.read_text())
        except (OSError, ValueError):
            return None
        now = started(known["pid"])
        return known["pid"] if now is not None and now == known["started"] else None

    def signal(self, number: int) -> None:
        if pid := self.pid:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.pid is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def stop(self, seconds: float = _KILL_AFTER) -> None:
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if not self.wait(seconds):
            self.kill()
        self.file.unlink(missing_ok=True)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait(_KILL_AFTER)

    def tail(self, lines: int = 15) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def marked(name: str, value: str) -> list[int]:
    """Pids of this user's processes that carry a variable in their environment: containers that outlived their node."""
    needle = f"{name}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
