"""What waits for a deferred job: a trigger that only reads the run directory and gives the orchestrator's sign of life.

It starts, ends and deletes nothing and asks no backend, so it may be cancelled, restarted or run twice at any moment.
When there is something to decide (the job has its record, the run is closing, the driver shows no sign of life, or
enough time has passed for a look at the backend) it wakes the task, which makes a real poke and defers again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from mayfly.airflow.looks import LookTooLong, looks_at

if TYPE_CHECKING:
    from mayfly.staging.rundir import RunDir
    from mayfly.steps.lifecycle import Handle

LOOK_SECONDS = 30.0
LONGEST_WATCH = 300.0
"""Seconds after which the task looks itself: at the backend, and at its deadlines."""
SILENT_SECONDS = 20.0
"""A driver whose heartbeat has not changed for so long (or 10 of its intervals) may be dead; the task asks the
backend."""
LONGEST_PAUSE = 15.0
"""Seconds between two looks, however old the wait is: a cluster that died is to be noticed within a minute."""


@dataclass(frozen=True)
class _Seen:
    lines: tuple[str, ...]
    heartbeat: float | None
    reason: str
    """Why the task should wake up; empty when it should not."""


class JobTrigger(BaseTrigger):
    """Watches one attempt of a job. `handle` is plan's return value, `since` when the wait began; the task is not woken
    before `not_before`, since Airflow could not tell it from its last look (see `waiting.shortest_pause`). Both in
    POSIX seconds."""

    def __init__(
        self, *, handle: dict[str, Any], job: str, attempt: int, by: str, since: float, not_before: float = 0.0
    ) -> None:
        super().__init__()
        self.handle, self.job, self.attempt, self.by = handle, job, attempt, by
        self.since, self.not_before = since, not_before
        self._dir: RunDir | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("handle", "job", "attempt", "by", "since", "not_before")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: why the task should look. Cancellation needs nothing: whatever was begun may be repeated."""
        reason = await self._watch()
        # at most a minute: the clock that said `not_before` is another machine's
        await asyncio.sleep(min(max(0.0, self.not_before - time.time()), 60.0))
        yield TriggerEvent({"reason": reason})

    async def _watch(self) -> str:
        from mayfly.steps.lifecycle import Handle

        handle = Handle.from_json(self.handle)
        timing = handle.target.timing
        looks = looks_at(handle.target.staging)
        started = alive = time.monotonic()
        longest = min(LONGEST_WATCH, timing.lease_ttl / 3)
        silent = max(SILENT_SECONDS, 10 * timing.status)
        heartbeat: float | None = None
        # After a restart of the triggerer all triggers begin at once; they should not look at once.
        await asyncio.sleep(random.uniform(0.0, self._interval(handle)))
        while True:
            try:
                seen: _Seen = await looks.do(lambda: self._look(handle), seconds=LOOK_SECONDS)
            except LookTooLong as error:
                self.log.warning("No answer, nothing is known; asking again: %s", error)
            except Exception as error:
                self.log.warning("Cannot read the run directory; asking again: %s: %s", type(error).__name__, error)
            else:
                for line in seen.lines:
                    self.log.info("%s", line)
                if seen.reason:
                    return seen.reason
                if seen.heartbeat != heartbeat:
                    heartbeat, alive = seen.heartbeat, time.monotonic()
            now = time.monotonic()
            if now - alive > silent or now - started > longest:
                return "time to look at the backend"
            await asyncio.sleep(self._interval(handle))

    def _interval(self, handle: Handle) -> float:
        age, poll = time.time() - self.since, handle.target.timing.poll
        return min(LONGEST_PAUSE, next((pause for until, pause in poll if age < until), poll[-1][1]))

    def _look(self, handle: Handle) -> _Seen:
        """In a thread: read what is new, renew the lease."""
        from mayfly.staging.credentials import target_store
        from mayfly.staging.rundir import RunDir
        from mayfly.steps.attempts import renew_lease

        rundir = self._dir = self._dir or RunDir(target_store(handle.target), handle.name)
        attempt = rundir.attempt(self.job, self.attempt)
        if rundir.closing() is not None:
            return _Seen((), None, "the run is closing")
        if attempt.record() is not None:
            return _Seen((), None, "the job has ended")
        order = attempt.order()
        if order is None:
            return _Seen((), None, "there is no such attempt")
        lines, progress = renew_lease(attempt, order, by=self.by)
        status = attempt.status()
        return _Seen((*lines, *filter(None, [progress])), status.at if status else None, "")
