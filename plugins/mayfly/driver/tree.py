"""Our descendants: who they are, what they use, and their end.

The supervisor is a *subreaper*: whatever a child forks, and however it daemonises, stays our descendant. So "all that
this job started" is a list we can always make, and ending it needs no names and no guesses.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans of ours become our children and not init's. Linux; elsewhere process groups must do."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """This process gets SIGKILL when `parent`, which started it, ends. Linux; call it first of all."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Use:
    """One look at a set of processes: resident bytes in all and of the largest, CPU seconds per (pid, start time)."""

    memory: int
    largest: int
    cpu_seconds: dict[tuple[int, float], float]


def started(process: psutil.Process) -> float:
    """Seconds from the machine's start to that of the process: with its pid the name of one process. NoSuchProcess.

    Not `create_time()`: to the kernel's number it adds what the clock takes for the machine's start, anew at each call,
    so that a clock that is set makes another process of a living one. Outside Linux it is all there is."""
    if sys.platform != "linux":
        return process.create_time()
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_bytes()
    except OSError as error:
        raise psutil.NoSuchProcess(process.pid) from error
    return int(stat.rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5), `starttime`


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """All of them (also of a process that is just ending: then none)."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def below(pid: int, processes: Iterable[psutil.Process]) -> set[int]:
    """The pids of those that descend from `pid`, which leads a session, or are of its session: when `pid` has ended,
    what it had started is ours by descent. A second look for descendants would read all of the machine's."""
    parents, found = {}, {pid}
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            parents[process.pid] = process.ppid()
            if pid and os.getsid(process.pid) == pid:
                found.add(process.pid)
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def use(processes: Iterable[psutil.Process]) -> Use:
    memory = largest = 0
    cpu: dict[tuple[int, float], float] = {}
    for process in processes:
        with contextlib.suppress(psutil.Error), process.oneshot():
            resident = process.memory_info().rss
            memory += resident
            largest = max(largest, resident)
            times = process.cpu_times()
            cpu[(process.pid, started(process))] = times.user + times.system
    return Use(memory=memory, largest=largest, cpu_seconds=cpu)


def memory_of_all(processes: Collection[psutil.Process]) -> int:
    """Resident bytes in all, where pages that several share, as forked children do, count once. Outside Linux, and of
    a process that may not be asked, they count in each. Costs the kernel some 10 ms per GB: no use for all workers."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += _proportional(process.pid) or process.memory_info().rss
    return total


def _proportional(pid: int) -> int:
    """Its own pages, and its part of those that it shares; 0 = not known."""
    try:
        found = re.search(rb"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_bytes(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def write_list(path: Path, processes: Iterable[psutil.Process]) -> None:
    """`[[pid, when it was started], ...]`, whole or not at all; a full disk keeps the list before."""
    known = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            known.append([process.pid, started(process)])
    beside = path.with_name(f".{path.name}.new")
    with contextlib.suppress(OSError):
        beside.write_text(json.dumps(known))
        os.replace(beside, path)


def end_all(*, but: Collection[int] = (), grace: float, deadline: float = 5.0) -> int:
    """End all descendants except the trees below the pids in `but`: SIGTERM, `grace` seconds, SIGKILL until none is
    left. Returns how many there were. Blocks for at most `grace + deadline` seconds, and returns as soon as all ended.
    """
    first = _victims(but)
    count = len(first)
    if first and grace > 0:
        for process in first:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _wait_gone(but, grace)
    until = time.monotonic() + deadline
    while (left := _victims(but)) and time.monotonic() < until:  # they may fork while we look
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        _wait_gone(but, 0.2)
    return count


def _wait_gone(but: Collection[int], seconds: float) -> None:
    until = time.monotonic() + seconds
    while _victims(but) and time.monotonic() < until:
        time.sleep(0.03)


def _victims(but: Collection[int]) -> list[psutil.Process]:
    spared = set(but)
    for pid in but:
        spared |= {process.pid for process in descendants(pid)}
    found = []
    for process in descendants():
        with contextlib.suppress(psutil.Error):
            if process.pid in spared:
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
