"""Watching one attempt of a job from outside: lease, log, record, cancel.

All of it goes through the run directory; the backend is asked only whether the driver lives.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from mayfly.backends.base import ClusterBackend
from mayfly.contract import Closing, JobOrder, Lease, Outcome, Record, Tasks, Timestamp
from mayfly.errors import BackendError, ContractError, DeadlinePassed
from mayfly.staging.rundir import AttemptDir
from mayfly.states import JobState
from mayfly.steps.progress import progress_line

LINES_A_POKE = 50
"""Of the log, with the line that names the rest."""
_SEGMENTS_A_POKE = 40
_CANCEL_EXTRA_SECONDS = 15.0
"""Beyond the driver's own grace: time for it to write its record."""
_LISTEN_SECONDS = 10.0
"""Between two looks while a driver is silent: that its machine is lost is to be known within a minute."""
_JOB_EXTRA_SECONDS = 120.0
"""The driver keeps its own limits; only when it does not is the orchestrator's deadline needed."""


def renew_lease(attempt: AttemptDir, order: JobOrder, *, by: str) -> tuple[tuple[str, ...], str]:
    """Give the sign of life; returns new log lines, and the progress line if it has changed since the last poke."""
    old = attempt.lease() or Lease(seq=0, writer="", ttl_s=order.lease_ttl)
    first: tuple[str, ...] = ()
    if old.writer != by:
        first = (f"reattached to attempt {order.attempt}, which was started {time.time() - order.at:.0f} s ago",)
    lines, segment = read_log(attempt, old.segment)
    status = attempt.status()
    shown = progress_line(status) if status else old.shown
    attempt.put("lease.json", replace(old, seq=old.seq + 1, writer=by, segment=segment, shown=shown))
    return first + lines, f"{status.elapsed:.0f} s | {shown}" if status and shown != old.shown else ""


def rest_of_log(attempt: AttemptDir, *, after: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The lines `after` which this poke would end, and what the driver wrote between the last renewal and its record;
    the newest of both. Read once, whoever asks."""
    lease = attempt.lease()
    if lease is None:
        return after
    rest, segment = read_log(attempt, lease.segment)
    if segment != lease.segment:
        attempt.put("lease.json", replace(lease, seq=lease.seq + 1, segment=segment))
    lines = after + rest
    if len(lines) <= LINES_A_POKE:
        return lines
    return (f"... lines left out; all of it: {attempt.url}/log/", *lines[-(LINES_A_POKE - 1) :])


def read_log(attempt: AttemptDir, segment: int) -> tuple[tuple[str, ...], int]:
    """Lines of the log from segment number `segment` on, at most `LINES_A_POKE`, and the next segment to read."""
    skipped = 0
    data = b""
    count = 0
    while (part := attempt.log_segment(segment)) is not None:
        segment, count, data = segment + 1, count + 1, data + part
        if count == _SEGMENTS_A_POKE:  # a script that prints without end must not hold up the lease
            skipped = _last_segment(attempt) - 2 - segment
            segment += max(0, skipped)
    lines = tuple(data.decode(errors="replace").splitlines())
    if len(lines) > LINES_A_POKE or skipped > 0:
        more = f" and {skipped} segments" if skipped > 0 else ""
        kept = lines[-(LINES_A_POKE - 1) :]
        lines = (f"... {len(lines) - len(kept)} lines{more} left out; all of it: {attempt.url}/log/", *kept)
    return lines, segment


def _last_segment(attempt: AttemptDir) -> int:
    names = attempt.store.list(f"{attempt.path}/log/")
    return int(names[-1].rsplit("/", 1)[-1].removesuffix(".txt")) if names else 0


def record_of_the_dead(
    attempt: AttemptDir, order: JobOrder, backend: ClusterBackend, *, submit_to: str | None = None
) -> Record | None:
    """The record of a driver that is gone, written for it if it left none; None while it lives or nothing is known.

    With `submit_to` (URL of the run directory) a driver that never started is started: whoever opened the attempt died
    before it could. Where asking costs, nobody asks while the driver's heartbeat is young.
    """
    quiet = _quiet(order, backend)
    if quiet and heard(attempt, order) < quiet:
        return None
    view = backend.poll(order)
    if view.state is JobState.NEVER_STARTED and submit_to and not view.lost:
        backend.submit(order, rundir=submit_to)
        return None
    # Two witnesses, the cloud's agent and the driver, are silent: nothing of that machine is left to wait for.
    silent = view.state is JobState.SILENT and heard(attempt, order) > 2 * quiet
    if view.state not in (JobState.ENDED, JobState.NEVER_STARTED) and not silent:
        return None
    record = attempt.record()  # it may have been written between our last read and the backend's look
    if record is not None:
        return record
    from mayfly.failures.classify import (  # needed on this path alone; a poke pays for what it imports
        cluster_lost,
        driver_died,
    )

    status = attempt.status()
    tail, _ = read_log(attempt, max(0, _last_segment(attempt) - 1))
    said = tuple(f"backend: {line}" for line in view.detail.splitlines()[-20:])
    failure = driver_died(status, (*tail, *said))
    if view.lost or silent:
        found = backend.explain(order.cluster) if view.lost else None
        failure = found or cluster_lost(order.cluster, view.lost or view.detail, tail)
    attempt.create(
        "record.json",
        Record(
            cluster=order.cluster,
            job=order.job,
            attempt=order.attempt,
            outcome=Outcome.FAILED,
            failure=failure,
            started_at=order.at,
            ended_at=status.at if status else Timestamp(time.time()),
            tasks=status.tasks if status else Tasks(),
            by="orchestrator",
        ),
    )
    return attempt.record()


def next_look(attempt: AttemptDir, order: JobOrder, backend: ClusterBackend) -> float | None:
    """Seconds within which to look again: soon from when a driver falls silent until it counts as lost."""
    quiet = _quiet(order, backend)
    return _LISTEN_SECONDS if quiet and quiet <= heard(attempt, order) < 4 * quiet else None


def _quiet(order: JobOrder, backend: ClusterBackend) -> float:
    """Seconds of silence after which the backend is asked; 0 where it always is."""
    return max(backend.quiet_seconds, 10 * order.timing.status) if backend.quiet_seconds else 0.0


def heard(attempt: AttemptDir, order: JobOrder) -> float:
    """Seconds since the driver's last sign of life, else since the attempt was opened. Clocks may differ: a sign from
    the future is as old as it is ahead."""
    status = attempt.status()
    return abs(time.time() - (status.at if status else order.at))


def cancel(attempt: AttemptDir, order: JobOrder, backend: ClusterBackend, *, by: str, reason: str) -> float:
    """Ask the driver to end: by a file, which works anywhere, and by the backend's own signal, which is faster.

    Returns when its record must be there at the latest (POSIX seconds, counted from the first ask; long ago when that
    cannot be read any more). A backend that does not signal changes nothing of it.
    """
    attempt.create("cancel.json", Closing(at=Timestamp(time.time()), by=by, reason=reason))
    with suppress(BackendError):
        backend.cancel(order)
    asked = None
    with suppress(ContractError):
        asked = attempt.read(Closing, "cancel.json")
    return (asked.at if asked else 0.0) + order.timing.stop_grace + _CANCEL_EXTRA_SECONDS


def enforce_deadline(attempt: AttemptDir, order: JobOrder, backend: ClusterBackend, *, by: str) -> None:
    """DeadlinePassed when an attempt goes on although its driver should long have ended it."""
    allowed = order.limits.start + order.limits.job + order.timing.stop_grace + _JOB_EXTRA_SECONDS
    age = time.time() - order.at
    if age > allowed:
        cancel(attempt, order, backend, by=by, reason="its deadline passed and the driver did not end it")
    if age > allowed + _JOB_EXTRA_SECONDS:
        raise DeadlinePassed(
            f"job {order.job} runs since {age:.0f} s, at most {allowed:.0f} s were planned, and its driver does not "
            "answer; the cluster will be deleted"
        )
