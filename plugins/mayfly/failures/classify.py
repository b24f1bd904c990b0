"""Why an attempt failed. Pure and stdlib only: the supervisor on the cluster classifies, and the orchestrator does when
the driver died. What is recognised, and what is said of it, stands in one table: `mayfly.failures.rules`.
"""

from __future__ import annotations

from mayfly.contract import Failure, FailureClass, Status
from mayfly.failures.logtext import bounded, last_lines, last_traceback
from mayfly.failures.reading import Facts, Reading
from mayfly.failures.rules import RULES
from mayfly.units import format_duration, format_size


def classify(facts: Facts) -> Failure | None:
    """The failure, or None when the script ended by itself with exit code 0. Never raises on odd facts."""
    if facts.ended_by == "script" and facts.exit_code == 0:
        return None
    reading = Reading(facts=facts, traceback=last_traceback(facts.log_tail))
    rule = next(rule for rule in RULES if rule.match(reading))
    return Failure(
        cls=rule.cls, evidence=bounded(rule.evidence(reading)), advice=rule.advice(reading), retryable=rule.retryable
    )


def cluster_lost(name: str, found: str, log_tail: tuple[str, ...]) -> Failure:
    """The backend has shown that the cluster below a job is gone, or that its machine answers nobody."""
    preempted = "preempt" in found.lower()
    return Failure(
        cls=FailureClass.PREEMPTED if preempted else FailureClass.CLUSTER_LOST,
        evidence=bounded([f"cluster {name}: {found}", *last_lines(log_tail)]),
        advice=(
            "The cluster ended while the job ran: by somebody's hand, by its maximum age, or with its master machine. "
            "Clear the whole group (plan and everything after it) to run again on a new one."
        ),
        retryable=False,
    )


def driver_died(status: Status | None, log_tail: tuple[str, ...]) -> Failure:
    """The backend has shown that the driver is gone, and there is no record. `status` is its last sign of life."""
    if status is None:
        seen = "the driver never wrote a status: it ended before or while it started"
        advice = (
            "Look at the driver's own output on the target. Usual causes: the target's `python` does not exist or "
            "lacks Dask, the staging store cannot be written from the cluster, or the machine went away."
        )
    else:
        seen = (
            f"last status: phase {status.phase}, {format_duration(status.elapsed)} after the start, {status.workers} "
            f"workers, {format_size(status.memory)} in workers, {format_size(status.script_memory)} in the script"
        )
        advice = (
            "The driver's process or its machine ended without a word: killed from outside (the kernel's out-of-memory "
            "killer, an administrator, a reboot). A retry starts anew with a fresh driver; if it happens again in the "
            "same phase, give the machine more memory or the job smaller pieces."
        )
    return Failure(
        cls=FailureClass.DRIVER_DIED, evidence=bounded([seen, *last_lines(log_tail)]), advice=advice, retryable=True
    )
