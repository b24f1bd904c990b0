"""When a job must end: decided from plain observations and a clock that is passed in. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from mayfly.contract import JobOrder, Phase

CPU_ALIVE = 0.05
"""Cores; a process or worker that uses less counts as doing nothing."""


@dataclass(kw_only=True)
class LeaseWatch:
    """Whether the orchestrator still lives: time in which the lease was *readable* and its `seq` did not change.

    Time without an answer from the store does not count, and one gap counts for at most `longest_gap` seconds (a
    supervisor that was stopped or starved knows nothing of that time).
    """

    ttl: float
    longest_gap: float
    _seq: int | None = None
    _read_at: float | None = None
    _stale: float = 0.0

    def read(self, now: float, *, seq: int | None, ttl: float | None = None) -> None:
        """The lease was read at `now` (seconds); `seq` is None when there is none yet."""
        if self._read_at is not None:
            self._stale += min(now - self._read_at, self.longest_gap)
        self._read_at = now
        if ttl is not None and ttl > 0:
            self.ttl = ttl
        if seq is not None and seq != self._seq:
            self._seq, self._stale = seq, 0.0

    def unreadable(self) -> None:
        self._read_at = None

    @property
    def stale(self) -> bool:
        return self._stale > self.ttl


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What counts as progress. Counters only grow; `cpu` is the busiest process
    or worker in cores."""

    tasks_done: int = 0
    output_bytes: int = 0
    transfers: int = 0
    spilled: int = 0
    cpu: float = 0.0
    waiting_for_workers: bool = False


@dataclass(kw_only=True)
class StallWatch:
    """How long nothing has happened. `limit` seconds; 0 = off."""

    limit: float
    _last: Activity | None = None
    _since: float = 0.0
    _half_told: bool = field(default=False)

    def see(self, now: float, activity: Activity) -> None:
        if self._last is None or self._moved(activity):
            self._since = now
            self._half_told = False
        self._last = activity

    def quiet_for(self, now: float) -> float:
        return now - self._since if self._last is not None else 0.0

    def half(self, now: float) -> bool:
        """True once per quiet spell, at half of the limit: time to dump call stacks."""
        if self.limit and not self._half_told and self.quiet_for(now) >= self.limit / 2:
            self._half_told = True
            return True
        return False

    def stalled(self, now: float) -> bool:
        return self.limit > 0 and self.quiet_for(now) >= self.limit

    def _moved(self, new: Activity) -> bool:
        old = self._last
        return (
            old is None
            or new.cpu > CPU_ALIVE
            or new.waiting_for_workers
            or (new.tasks_done, new.output_bytes, new.transfers, new.spilled)
            != (old.tasks_done, old.output_bytes, old.transfers, old.spilled)
        )


class Ended(Exception):
    """The attempt is over. `by` is one of `classify.Facts.ended_by`; `limit` is the limit that was passed; `kind` is
    preflight's."""

    def __init__(self, by: str, detail: str = "", *, limit: float = 0, kind: str = "") -> None:
        self.by, self.detail, self.limit, self.kind = by, detail, limit, kind
        super().__init__(detail)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All that can end a job before its script does. Seconds and bytes; `now` is POSIX time."""

    phase: Phase
    now: float
    elapsed: float = 0.0
    in_phase: float = 0.0
    signal: str = ""
    carrier_gone: bool = False
    closing: str = ""
    cancel: str = ""
    lease_stale: bool = False
    lease_ttl: float = 0.0
    start_error: str = ""
    start_kind: str = ""
    stalled: bool = False
    script_memory: int = 0


def reason_to_end(seen: Seen, order: JobOrder) -> Ended | None:
    """The first reason, those of others before the job's own: who asked for the end must not read of a timeout."""
    limits, most = order.limits, order.script_memory
    if seen.signal:
        return Ended("cancelled", f"{seen.signal} received")
    if seen.carrier_gone:
        return Ended("carrier", "carrier gone: the cluster's own job that had started this driver has ended")
    if seen.closing:
        return Ended("closing", f"closing.json: {seen.closing}")
    if seen.cancel:
        return Ended("cancelled", f"cancel.json: {seen.cancel}")
    if seen.now >= order.expires_at:
        return Ended("expired", "the cluster's maximum age is over")
    if seen.lease_stale:
        return Ended("lease", f"no sign of the orchestrator for {seen.lease_ttl:g} s", limit=seen.lease_ttl)
    if seen.start_error:
        return Ended("start", seen.start_error, kind=seen.start_kind)
    if seen.phase is not Phase.RUN:
        if seen.elapsed > limits.start:
            return Ended("start", f"not ready after {limits.start:g} s (phase {seen.phase})", limit=limits.start)
        return None
    if seen.in_phase > limits.job:
        return Ended("timeout", f"the script ran longer than {limits.job:g} s", limit=limits.job)
    if seen.stalled:
        return Ended("stalled", f"nothing moved for {limits.stall:g} s", limit=limits.stall)
    if most is not None and seen.script_memory > most:
        detail = f"the script's processes use {seen.script_memory:,} bytes, the limit is {most:,}"
        return Ended("script_memory", detail, limit=most)
    return None
