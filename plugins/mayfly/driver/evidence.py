"""What is known of the running attempt: samples, peaks, status and metrics. Plain data in, files' content out."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mayfly.contract import Peaks, Phase, Status, Tasks, Timestamp, iso
from mayfly.driver.watch import Activity

Who = TypeVar("Who")


@dataclass(kw_only=True)
class CpuMeter(Generic[Who]):
    """CPU per process, or worker, between two looks."""

    _before: Mapping[Who, float] = field(default_factory=dict)
    _at: float = 0.0

    def rates(self, now: float, cpu_seconds: Mapping[Who, float]) -> dict[Who, float]:
        """Cores per process since the last look; a process that is new counts from its start."""
        seconds = now - self._at
        rates = {}
        if self._at and seconds > 0:
            rates = {who: max(0.0, cpu - self._before.get(who, 0.0)) / seconds for who, cpu in cpu_seconds.items()}
        self._before, self._at = cpu_seconds, now
        return rates


@dataclass(kw_only=True)
class Evidence:
    """Filled by the supervisor at every tick. Sizes in bytes, CPU in cores, times in seconds."""

    began: float = field(default_factory=time.monotonic)
    host: dict[str, Any] = field(default_factory=dict)
    cpu_script: float = 0.0
    script_memory: int = 0
    host_memory: int = 0
    largest_worker: int = 0
    """Of the workers on this machine, seen from outside: a worker that fills up has no time to report."""
    dashboard: str = ""
    busiest: float = 0.0
    """Cores of the busiest process or worker, over the stall watch's longer window."""
    peaks: Peaks = field(default_factory=Peaks)
    workers_lost: int = 0
    worker_exits: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    waiting: str = ""
    """Why workers are missing, as the launcher says it; empty when none are."""
    account: dict[str, Any] | None = None
    """YARN's own account, `contract.YarnAccount` as JSON."""
    seq: int = 0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    @property
    def tasks(self) -> Tasks:
        return Tasks(**{name: int(self.host.get(name, 0)) for name in Tasks.__dataclass_fields__})

    def update_peaks(self) -> None:
        now, old = self.host, self.peaks
        self.peaks = Peaks(
            workers=max(old.workers, now.get("workers", 0)),
            memory=max(old.memory, now.get("memory", 0)),
            worker_memory=max(old.worker_memory, now.get("worker_memory", 0), self.largest_worker),
            script_memory=max(old.script_memory, self.script_memory),
            host_memory=max(old.host_memory, self.host_memory),
            spilled=max(old.spilled, now.get("spilled", 0)),
            cpu_workers=max(old.cpu_workers, round(now.get("cpu", 0.0), 2)),
        )

    def status(self, phase: Phase, *, note: str = "") -> Status:
        self.seq += 1
        host = self.host
        return Status(
            seq=self.seq,
            at=Timestamp(time.time()),
            phase=phase,
            elapsed=round(self.elapsed, 1),
            tasks=self.tasks,
            biggest=host.get("biggest", ""),
            workers=host.get("workers", 0),
            workers_wanted=host.get("wanted", 0),
            memory=host.get("memory", 0),
            memory_limit=host.get("memory_limit", 0),
            spilled=host.get("spilled", 0),
            cpu_workers=round(host.get("cpu", 0.0), 2),
            cpu_script=round(self.cpu_script, 2),
            script_memory=self.script_memory,
            dashboard=self.dashboard,
            note=note,
        )

    def metrics_line(self) -> bytes:
        host = self.host
        values = {
            "t": round(self.elapsed, 2),
            "at": iso(time.time()),
            "workers": host.get("workers", 0),
            "memory": host.get("memory", 0),
            "memory_limit": host.get("memory_limit", 0),
            "spilled": host.get("spilled", 0),
            "cpu_workers": round(host.get("cpu", 0.0), 2),
            "cpu_script": round(self.cpu_script, 2),
            "script_memory": self.script_memory,
            "host_memory": self.host_memory,
            **{name: host.get(name, 0) for name in ("done", "running", "waiting", "failed")},
        }
        return json.dumps(values).encode() + b"\n"

    def activity(self, *, output_bytes: int) -> Activity:
        host = self.host
        return Activity(
            tasks_done=host.get("done", 0) + host.get("failed", 0),
            output_bytes=output_bytes,
            transfers=host.get("transfers", 0),
            spilled=host.get("spilled", 0),
            cpu=max(self.busiest, 0.0),
            waiting_for_workers=host.get("workers", 0) < host.get("wanted", 0),
        )


def oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory: in our control group, else on this machine."""
    try:
        with open("/proc/self/cgroup", encoding="ascii") as file:
            group = next(line.strip().split(":", 2)[2] for line in file if line.startswith("0::"))
        with open(f"/sys/fs/cgroup{group.rstrip('/')}/memory.events", encoding="ascii") as file:
            return _counter(file, "oom_kill")
    except (OSError, StopIteration, ValueError):
        pass
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            return _counter(file, "oom_kill")
    except (OSError, ValueError):
        return 0


def _counter(lines: Any, name: str) -> int:
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
