"""One life of a run's cluster, as a state machine: open -> closing -> closed.

    ABSENT --plan.json--> OPEN --closing.json--> CLOSING --receipt.json--> CLOSED

The state is read off three files that are each written once and never removed, so it only ever moves forward, whoever
writes. Everything that two actors could disagree about is decided here, from plain facts; `lifecycle` gathers the facts
and acts. What keeps "no cluster outlives its run" true under any interleaving:

- who creates reads closing.json *before* and *after* the call, and deletes what nobody wants;
- who deletes writes closing.json *first*, so that one of the two sees the other;
- each create call is announced and its return is noted, by number: one creator's return says nothing of another's call;
- who deletes reads these notes *before* it lists, so that a call noted as returned has had its effect in the listing;
- where a call may still be under way when delete lists, absence counts only after it has held for the backend's settle
  time, or at once where deleting a name makes creating it impossible. A settle time bounds how long a call may take
  from the look at closing.json on; a process that is stopped for longer there is left to the cluster's maximum age.

`tests/unit/test_generation_model.py` walks every interleaving, with deaths anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    ABSENT = "absent"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


def state_of(*, plan: bool, closing: bool, receipt: bool) -> State:
    """The state from which of the three files are there. A receipt outweighs all: it is written last."""
    if receipt:
        return State.CLOSED
    if closing:
        return State.CLOSING
    return State.OPEN if plan else State.ABSENT


class PlanMove(StrEnum):
    OPEN = "open this generation"
    ADOPT = "adopt this generation"
    END = "end this generation, then open the next"
    NEXT = "look at the next generation"


def plan_move(state: State, *, same_hash: bool, expired: bool) -> PlanMove:
    """What plan does with a generation it finds. Only a living generation of the same intention is adopted."""
    if state is State.ABSENT:
        return PlanMove.OPEN
    if state is State.CLOSED:
        return PlanMove.NEXT
    if state is State.OPEN and same_hash and not expired:
        return PlanMove.ADOPT
    return PlanMove.END


class JobMove(StrEnum):
    START = "start a new attempt"
    WATCH = "watch the attempt that runs"
    REPORT = "report the attempt that ended"


def job_move(*, last_attempt: int, ended: bool, final: bool, acknowledged_by: int | None, try_number: int) -> JobMove:
    """What run_job does with the last attempt (0 = there is none).

    An attempt that ended but was never reported (the task died between the two) is reported and not run again; a
    failure that an *earlier* try has reported is history, and this try starts anew. What is `final`, a success or a
    failure that no retry cures, is reported as often as it is asked for: Airflow can lose what a task said at its end
    (an api-server that gives no answer, or ends the task in that moment; both seen under load) and try again, which
    must not run a job twice. To run it again is to open the next generation.
    """
    if last_attempt == 0:
        return JobMove.START
    if not ended:
        return JobMove.WATCH
    if final or acknowledged_by is None or acknowledged_by == try_number:
        return JobMove.REPORT
    return JobMove.START


@dataclass(frozen=True, kw_only=True)
class DeletionFacts:
    """What delete knows when its last listing found nothing. Times are POSIX seconds."""

    asked: bool
    """Somebody was about to call create."""
    created: bool
    """Some create call returned."""
    pending: bool
    """Some create call was announced and is not known to have returned: it may still take effect."""
    matched: bool
    """deleting.json: some try of delete saw the cluster."""
    expired: bool
    """The cloud's own maximum age has passed, so that the cluster may have gone by itself."""
    settle_seconds: float
    closing_at: float
    now: float


@dataclass(frozen=True, kw_only=True)
class Proof:
    """`rule` = how absence is proven (goes into the receipt); or `wait_until`; or `unproven` = why it cannot be."""

    rule: str = ""
    wait_until: float | None = None
    unproven: str = ""


def prove_deletion(facts: DeletionFacts) -> Proof:
    """Whether "nothing found" is proof of absence."""
    if facts.created and not facts.matched:
        if facts.expired:
            return Proof(rule="expired: the cluster was created, its maximum age has passed, and nothing is listed")
        return Proof(
            unproven="a cluster was created, but no listing and no look-up by name ever showed it to delete: "
            "a wrong account, region or state folder would look just like this"
        )
    if not facts.asked:
        return Proof(rule="never asked for: the run ended before anything was created")
    if not (facts.pending or facts.created or facts.matched):
        return Proof(rule="never made: every create call was refused, and neither name nor labels find anything")
    if not facts.pending:
        return Proof(rule="deleted: it was seen, deleted, and neither name nor labels find anything")
    if facts.settle_seconds <= 0:
        return Proof(rule="name retired: nothing is there, and nothing of that name can be created any more")
    if facts.now < facts.closing_at + facts.settle_seconds:
        return Proof(wait_until=facts.closing_at + facts.settle_seconds)
    return Proof(
        rule=f"settled: a create call was not known to have ended; nothing appeared for {facts.settle_seconds:.0f} s"
    )
