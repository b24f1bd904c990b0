"""The regular look at everything: measures, writes status and metrics, feeds the stall watch. Never waits."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

from mayfly.contract import JobOrder, Phase, encode
from mayfly.driver import tree
from mayfly.driver.children import Children
from mayfly.driver.evidence import CpuMeter, Evidence
from mayfly.driver.logbook import SEGMENT_BYTES, Logbook
from mayfly.driver.watch import StallWatch
from mayfly.driver.writer import Write, Writer

NO_TASKS = (
    "no task ran on the cluster{when}: the script does all the work by itself, and the workers idle. Say "
    "`from dask.distributed import Client; client = Client()` before the first `.compute()`, and drop "
    '`scheduler="threads"`'
)


class Gauge:
    """`tick` is called often and does its work every `Timing.status` seconds. `path` is the attempt's, in the store."""

    def __init__(
        self, *, order: JobOrder, path: str, evidence: Evidence, children: Children, log: Logbook, writer: Writer
    ) -> None:
        self._order, self._path, self._evidence = order, path, evidence
        self._children, self._log, self._writer = children, log, writer
        self.stall = StallWatch(limit=order.limits.stall)
        self.our_output = 0
        """Bytes of the script's output that are our own doing (call stacks): no sign of life."""
        self.disturbed = False
        """Set while we make it print them."""
        self.no_tasks = ""
        self._run_since = 0.0
        self._meter, self._stall_meter = CpuMeter[tuple[int, float]](), CpuMeter[tuple[int, float]]()
        self._worker_meter = CpuMeter[str]()
        self._next_tick = self._next_look = 0.0
        self._metrics = bytearray()
        self._metrics_number = 0
        self._metrics_at = time.monotonic()

    def hurry(self) -> None:
        """The next tick does its work at once: a phase has begun."""
        self._next_tick = 0.0

    @property
    def seconds_to_next(self) -> float:
        return max(0.0, self._next_tick - time.monotonic())

    @property
    def script_bytes(self) -> int:
        return self._log.bytes_by_source.get("script", 0)

    def tick(self, phase: Phase) -> None:
        now = time.monotonic()
        self._log.tick()
        if now < self._next_tick:
            return
        self._next_tick = now + self._order.timing.status
        everyone = tree.descendants()
        self._measure(now, everyone)
        if now >= self._next_look:
            self._look(now, everyone, phase)
        if phase is Phase.RUN:
            self._look_for_tasks(now)
        self.list_processes(everyone)
        self._writer.latest(f"{self._path}/status.json", encode(self._evidence.status(phase, note=self._note(phase))))
        self._metrics += self._evidence.metrics_line()
        if now - self._metrics_at >= self._order.timing.segment or len(self._metrics) >= SEGMENT_BYTES:
            self.close_metrics()

    def close_metrics(self) -> None:
        """Hand over the segment, when there is something in it and the writer has room."""
        if self._metrics and self._writer.room():
            path = f"{self._path}/metrics/{self._metrics_number:06d}.jsonl"
            self._writer.ordered(Write(path=path, data=bytes(self._metrics), group="metrics"))
            self._metrics_number += 1
            self._metrics.clear()
            self._metrics_at = time.monotonic()

    def list_processes(self, everyone: list[psutil.Process]) -> None:
        """For whoever must end them when we were killed."""
        if path := os.environ.get("MAYFLY_PROCESSES_FILE"):
            tree.write_list(Path(path), everyone)

    def note_no_tasks(self, when: str = "") -> None:
        self.no_tasks = NO_TASKS.format(when=when)
        self._log.say(self.no_tasks)

    def _measure(self, now: float, everyone: list[psutil.Process]) -> None:
        evidence, host, early = self._evidence, self._children.host, self._children.early
        host_pid = host.pid if host is not None else 0
        below_host = tree.below(host_pid, everyone)
        early_pid = early.pid if early is not None else 0
        others = below_host | {host_pid, early_pid}
        ours = [process for process in everyone if process.pid not in others]
        script = tree.use(ours)
        evidence.script_memory = script.memory if len(ours) == 1 else tree.memory_of_all(ours)
        # What it does while it waits for its go is not the script's, also when it has become the script.
        waiting = tree.use(process for process in everyone if process.pid == early_pid)
        both = {**script.cpu_seconds, **waiting.cpu_seconds}
        evidence.cpu_script = sum(rate for (pid, _), rate in self._meter.rates(now, both).items() if pid != early_pid)
        evidence.host_memory = tree.use(process for process in everyone if process.pid == host_pid).memory
        if self._order.launcher == "processes":  # else what the host has started here are no workers
            evidence.largest_worker = tree.use(process for process in everyone if process.pid in below_host).largest
        evidence.update_peaks()

    def _look(self, now: float, everyone: list[psutil.Process], phase: Phase) -> None:
        """The stall watch's: CPU over a longer window, or the flicker of a heartbeat would count as work. Processes of
        this machine are measured; workers on others say by themselves what they use."""
        self._next_look = now + max(self._order.timing.status, min(60.0, self._order.limits.stall / 4))
        host = self._children.host
        watched = tree.use(process for process in everyone if host is None or process.pid != host.pid)
        told = self._evidence.host if self._order.launcher != "processes" else {}
        here = self._stall_meter.rates(now, watched.cpu_seconds)
        elsewhere = self._worker_meter.rates(told.get("at", 0.0), told.get("cpu_seconds", {}))
        self._evidence.busiest = max((*here.values(), *elsewhere.values()), default=0.0)
        if phase is Phase.RUN and not self.disturbed:
            self.stall.see(now, self._evidence.activity(output_bytes=self.script_bytes - self.our_output))

    def _look_for_tasks(self, now: float) -> None:
        self._run_since = self._run_since or now  # the first tick of a phase comes at once
        seen = self._evidence.host
        idle = not any(seen.get(name) for name in ("done", "running", "waiting", "failed"))
        if idle and not self.no_tasks and now - self._run_since >= self._order.timing.no_tasks:
            self.note_no_tasks(f" in the first {now - self._run_since:.0f} s")

    def _note(self, phase: Phase) -> str:
        host = self._evidence.host
        short = phase is Phase.START or (phase is Phase.RUN and host.get("workers", 0) < host.get("wanted", 0))
        if self._evidence.waiting and short:
            return self._evidence.waiting
        return "no task on the cluster yet" if phase is Phase.RUN and self.no_tasks and not self._any_task() else ""

    def _any_task(self) -> bool:
        return bool(self._evidence.tasks.done or self._evidence.tasks.running)
