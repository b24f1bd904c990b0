"""The record of an attempt: what the evidence says, put together once."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping

from mayfly.contract import (
    Failure,
    FailureClass,
    JobOrder,
    Outcome,
    Record,
    Timestamp,
    YarnAccount,
    from_json,
)
from mayfly.driver.evidence import Evidence
from mayfly.failures.classify import Facts, classify


def explain(facts: Facts, *, complain: Callable[[str], None]) -> Failure | None:
    """`classify`, or a poor explanation when that fails: better than no record."""
    try:
        return classify(facts)
    except Exception as error:
        complain("".join(traceback.format_exception(error)))
        return Failure(cls=FailureClass.USER_ERROR, evidence=(f"ended by {facts.ended_by}", facts.detail))


def outcome_of(failure: Failure | None) -> Outcome:
    if failure is None:
        return Outcome.SUCCESS
    return Outcome.CANCELLED if failure.cls is FailureClass.CANCELLED else Outcome.FAILED


def make_record(
    order: JobOrder,
    *,
    failure: Failure | None,
    exit_code: int | None,
    started_at: Timestamp,
    phases: Mapping[str, float],
    evidence: Evidence,
    versions: Mapping[str, str],
    notes: Iterable[str],
) -> Record:
    """As of now."""
    return Record(
        cluster=order.cluster,
        job=order.job,
        attempt=order.attempt,
        outcome=outcome_of(failure),
        failure=failure,
        exit_code=exit_code,
        started_at=started_at,
        ended_at=Timestamp(time.time()),
        phases={name: round(seconds, 3) for name, seconds in phases.items()},
        peaks=evidence.peaks,
        tasks=evidence.tasks,
        workers_lost=evidence.workers_lost,
        versions=versions,
        notes=tuple(notes),
        yarn=from_json(YarnAccount, evidence.account) if evidence.account is not None else None,
    )


def no_start(order: JobOrder, error: OSError) -> Record:
    """The driver itself could not begin."""
    failure = Failure(
        cls=FailureClass.START_FAILED,
        evidence=(f"{error!r}",),
        advice="The driver could not work in its own scratch folder: look at the machine's disk space and limits.",
        retryable=True,
    )
    return make_record(
        order,
        failure=failure,
        exit_code=None,
        started_at=Timestamp(time.time()),
        phases={},
        evidence=Evidence(),
        versions={},
        notes=(),
    )
