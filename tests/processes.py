"""Which processes belong to whom, for tests that must know that none is left; and a port that is nobody's.

A Dask worker that sets its title overwrites its environment, so a mark in the environment alone misses it: where a
process works and from whom it descends count, too.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import psutil


def marked(name: str, value: str) -> Callable[[psutil.Process], bool]:
    """Whether a process carries this variable."""
    return lambda process: process.environ().get(name) == value


def works_below(folder: Path) -> Callable[[psutil.Process], bool]:
    """Whether its working directory is this folder or one below, also when that is gone."""
    start = f"{os.path.realpath(folder)}/"
    return lambda process: f"{process.cwd()}/".startswith(start)


def of_cluster(name: str) -> list[psutil.Process]:
    """All that runs for a local cluster; its folder has its name."""
    return family([marked("MAYFLY_CLUSTER", name), lambda process: f"/{name}/" in f"{process.cwd()}/"])


def family(signs: list[Callable[[psutil.Process], bool]]) -> list[psutil.Process]:
    """Living processes with one of the signs, and all that descend from them; never we or those above us."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if lives(process) and any(_has(process, sign) for sign in signs):
            found[process.pid] = process
    for process in list(found.values()):
        try:
            found |= {child.pid: child for child in process.children(recursive=True) if lives(child)}
        except psutil.Error:
            continue
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for pid, process in found.items() if pid not in ours]


def end(process: psutil.Process) -> None:
    """SIGKILL; nothing when it has ended by itself."""
    try:
        process.kill()
    except psutil.Error:
        pass


def free_port() -> int:
    """A port of loopback for somebody who opens it later. It lies below the range from which the system gives ports to
    whoever asks for any, so that none of those gets it meanwhile."""
    while True:
        with socket.socket() as probe:
            port = random.SystemRandom().randrange(15000, 32000)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def lives(process: psutil.Process) -> bool:
    """Whether it has not ended; who has ended and was not collected lives no more."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _has(process: psutil.Process, sign: Callable[[psutil.Process], bool]) -> bool:
    try:
        return sign(process)
    except (psutil.Error, OSError):
        return False
