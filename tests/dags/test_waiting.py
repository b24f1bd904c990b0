"""Waiting: when to look again, and what an error costs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from mayfly.airflow.compat import AirflowException, AirflowFailException, AirflowRescheduleException
from mayfly.airflow.waiting import age, interval, shortest_pause, wait
from mayfly.contract import Failure, FailureClass, Timing
from mayfly.errors import BackendUnavailable, InputError, JobFailed, NotProven, StoreUnavailable
from mayfly.steps.poke import Poll

TIMING = Timing(poll=((60.0, 5.0), (600.0, 10.0), (1e12, 30.0)), poll_inline=0.001)


def context(*, pokes: int = 0, user: str | None = None) -> dict[str, Any]:
    return {"task_reschedule_count": pokes, "dag_run": SimpleNamespace(triggering_user_name=user)}


def polls(*results: Poll | Exception) -> Callable[[], Poll]:
    left = list(results)

    def poke() -> Poll:
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return poke


def run(poke: Callable[[], Poll], *, patience: float = 100.0, **about: Any) -> Any:
    return wait(context(**about), poke, timing=lambda: TIMING, patience=patience)


def test_intervals_grow_with_the_age_of_the_wait() -> None:
    found = [interval(TIMING, pokes=n) for n in range(200)]
    assert found == sorted(found)
    assert (found[0], found[8], found[9], found[199]) == (5.0, 5.0, 10.0, 30.0)
    assert 600 <= age(TIMING, pokes=found.index(30.0)) < 620


def test_done_at_once_returns_the_result() -> None:
    assert run(polls(Poll(done=True, result="handle"))) == "handle"


def test_not_done_frees_the_slot_and_says_until_when() -> None:
    before = datetime.now(UTC).timestamp()
    with pytest.raises(AirflowRescheduleException) as caught:
        run(polls(Poll(done=False)), pokes=500)
    after = datetime.now(UTC).timestamp()
    assert before + 29 < caught.value.reschedule_date.timestamp() < after + 31


def test_a_poke_that_wants_the_next_one_soon_is_rescheduled_and_never_deferred() -> None:
    deferred: list[bool] = []
    before = datetime.now(UTC).timestamp()
    with pytest.raises(AirflowRescheduleException) as caught:
        wait(
            context(pokes=500),
            polls(Poll(done=False, again=12.0)),
            timing=lambda: TIMING,
            patience=1.0,
            defer=lambda: deferred.append(True),
        )
    after = datetime.now(UTC).timestamp()
    assert before + 11 < caught.value.reschedule_date.timestamp() < after + 13
    assert deferred == []


def test_never_sooner_than_airflow_can_bear() -> None:
    before = datetime.now(UTC).timestamp()
    with pytest.raises(AirflowRescheduleException) as caught:
        wait(context(), polls(Poll(done=False)), timing=lambda: Timing(poll=((1e9, 0.1),)), patience=1.0)
    assert caught.value.reschedule_date.timestamp() - before >= shortest_pause() >= 5


def test_under_dags_test_it_waits_where_it_is() -> None:
    assert run(polls(Poll(done=False), Poll(done=False), Poll(done=True, result=3)), user="dag_test") == 3


@pytest.mark.parametrize("error", [StoreUnavailable("?"), BackendUnavailable("?")])
def test_no_answer_is_unknown_and_costs_nothing(error: Exception) -> None:
    with pytest.raises(AirflowRescheduleException):
        run(polls(error))
    assert run(polls(error, Poll(done=True, result=1)), user="dag_test") == 1


def test_no_answer_for_ever_costs_a_try() -> None:
    with pytest.raises(AirflowException) as caught:
        run(polls(StoreUnavailable("bucket is gone")), pokes=100, patience=60.0)
    assert type(caught.value) is AirflowException and "bucket is gone" in str(caught.value)


FAILED = JobFailed(
    Failure(cls=FailureClass.USER_ERROR, evidence=("ValueError",), advice="fix it"), lines=("last words",)
)


@pytest.mark.parametrize(
    ("error", "final"),
    [(InputError("no"), True), (NotProven("still there"), False), (FAILED, True)],
)
def test_whether_a_retry_may_help(error: Exception, final: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="airflow.task.mayfly"), pytest.raises(AirflowException) as caught:
        run(polls(error))
    assert isinstance(caught.value, AirflowFailException) is final
    assert str(error) in str(caught.value)
    assert ("last words" in caplog.text) is (error is FAILED)


def test_lines_and_progress_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="airflow.task.mayfly"):
        run(polls(Poll(done=True, lines=("100 % sure",), progress="12 s | run")))
    assert "100 % sure" in caplog.text and "12 s | run" in caplog.text
