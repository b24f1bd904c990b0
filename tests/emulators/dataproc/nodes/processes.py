"""Processes in nodes, as this host sees them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Of all threads of a process, the nearest first."""
    found: list[int] = []
    todo = [pid]
    while todo:
        parent = todo.pop(0)
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
        except OSError:
            continue
        for task in tasks:
            try:
                below = [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
            found += below
            todo += below
    return found


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for all that descends from a command that was started in a node; waits for the command."""
    send(descendants(process.pid), signal.SIGKILL)
    process.wait(240)
