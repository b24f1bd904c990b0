"""The one way in which tasks wait.

A waiting task holds no worker slot: it does what can be done now and reschedules itself. Under `airflow dags test` and
in tests of one process there is nobody to reschedule it, so it polls where it is.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from mayfly.airflow.compat import AirflowException, AirflowFailException, AirflowRescheduleException, conf
from mayfly.contract import Timing
from mayfly.errors import BackendUnavailable, InputError, JobFailed, MayflyError, Refused, StoreUnavailable

if TYPE_CHECKING:
    from mayfly.steps.poke import Poll

POKE_SECONDS = 2.0
"""What one poke costs beside its interval: the task's process starts and ends (measured 1.5-3 s)."""

SCHEDULER_SECONDS = 4.0
"""How long a scheduler may need to hear that a task's process has ended."""

log = logging.getLogger("airflow.task.mayfly")


def is_inline(context: Mapping[str, Any]) -> bool:
    """Whether this process must wait by itself: `airflow dags test`."""
    return getattr(context["dag_run"], "triggering_user_name", None) == "dag_test"


def wait(
    context: Mapping[str, Any],
    poke: Callable[[], Poll],
    *,
    timing: Callable[[], Timing | None],
    patience: float,
    waited: float = 0.0,
    defer: Callable[[], None] = lambda: None,
) -> Any:
    """Poke until it is done and return its result.

    Between pokes the task defers (`defer` does not return when it can), else reschedules itself, or sleeps where
    `is_inline`. `waited` is for how many seconds it did so before, as far as its reschedules do not tell. Deadlines are
    the poke's own: they are absolute and come from the plan, since Airflow's `execution_timeout` does not count
    waiting. No answer from a store or a backend is *unknown*, and costs no retry until the wait is about `patience`
    seconds old.
    """
    count = int(context.get("task_reschedule_count") or 0)
    while True:
        try:
            poll = poke()
        except (StoreUnavailable, BackendUnavailable) as error:
            if max(waited, age(timing() or Timing(), pokes=count, inline=is_inline(context))) > patience:
                fail(error)
            log.warning("No answer, nothing is known; asking again: %s", error)
            poll = None
        except MayflyError as error:
            fail(error)
        except KeyboardInterrupt:
            interrupted(context)
        if poll is not None:
            for line in (*poll.lines, *([poll.progress] if poll.progress else [])):
                log.info("%s", line)
            if poll.done:
                return poll.result
        used = timing() or Timing()
        if not is_inline(context):
            soon = poll.again if poll is not None else None
            if poll is not None and soon is None:
                try:
                    defer()
                except (StoreUnavailable, BackendUnavailable) as error:  # it reads whether there is what to wait for
                    log.warning("No answer, so this task does not defer: %s", error)
            usual = interval(used, pokes=count)
            pause = max(usual if soon is None else min(soon, usual), shortest_pause())
            raise AirflowRescheduleException(datetime.now(UTC) + timedelta(seconds=pause))
        count += 1
        try:
            time.sleep(used.poll_inline)
        except KeyboardInterrupt:
            interrupted(context)


def interrupted(context: Mapping[str, Any]) -> NoReturn:
    """Ctrl-C in `dags test`. Airflow would try the task again, which joins the job; teardowns are wanted instead."""
    if getattr(context.get("task"), "is_teardown", False):
        raise KeyboardInterrupt
    raise AirflowFailException("interrupted by Ctrl-C; the cluster is deleted") from None


def fail(error: MayflyError) -> NoReturn:
    """A retryable error costs a try; any other ends the task at once."""
    for line in getattr(error, "lines", ()):
        log.info("%s", line)
    # These explain themselves; the traceback of our own code would only push the reason out of sight.
    cause = None if isinstance(error, (InputError, JobFailed, Refused)) else error
    if error.retryable:
        raise AirflowException(str(error)) from cause
    raise AirflowFailException(str(error)) from cause


def interval(timing: Timing, *, pokes: int) -> float:
    """Seconds until the next poke, after `pokes` pokes of this try. The wait's age follows from their number, so that
    nothing needs to be asked or remembered (rescheduling clears a task's own XComs)."""
    now = age(timing, pokes=pokes)
    return next((pause for until, pause in timing.poll if now < until), timing.poll[-1][1])


def shortest_pause() -> float:
    """Seconds below which Airflow loses a rescheduled task.

    A supervisor often notices the end of its task only at its next heartbeat (5 s by default). A task that the
    scheduler has queued again before it hears of that end is taken for killed, and failed (measured on both versions).
    """
    return float(conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0)) + SCHEDULER_SECONDS


def age(timing: Timing, *, pokes: int, inline: bool = False) -> float:
    """About how many seconds a wait of `pokes` pokes has taken."""
    if inline:
        return pokes * timing.poll_inline
    total = 0.0
    for until, pause in timing.poll:
        each = pause + POKE_SECONDS
        here = min(pokes, max(0, math.ceil((until - total) / each)))
        total, pokes = total + here * each, pokes - here
    return total
