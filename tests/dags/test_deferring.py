"""Deferring: which way to wait is picked, and the trigger that waits: what it reads, when it wakes the task."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mayfly.airflow import triggers
from mayfly.airflow.deferring import choose, is_installed
from mayfly.airflow.looks import Looks, LookTooLong
from mayfly.airflow.triggers import JobTrigger
from mayfly.contract import (
    Closing,
    FrozenTarget,
    JobOrder,
    Lease,
    Limits,
    Outcome,
    Phase,
    Record,
    Status,
    Timestamp,
    Timing,
    WorkersPlan,
)
from mayfly.staging.rundir import AttemptDir, RunDir
from mayfly.staging.stores import FileStore
from mayfly.steps.lifecycle import Handle

NAME = "mayfly-trips-0123456789"
BY = "airflow cluster.run_job try 1"
NOW = Timestamp(1_790_000_000.0)

# ---------------------------------------------------------------- which way


def target(folder: Path = Path("/nowhere"), **about: Any) -> FrozenTarget:
    return FrozenTarget(
        name="local",
        backend="local",
        launcher="processes",
        staging=f"file://{folder}",
        timing=Timing(poll=((1e12, 0.02),), lease_ttl=36_000.0),
        **about,
    )


@pytest.mark.parametrize(
    "waiting, installed, airflow, connection, deferred, why",
    [
        ("auto", True, (3, 3), None, True, "installed as a package"),
        ("auto", True, (3, 3), "gcp", True, "installed as a package"),
        ("auto", True, (3, 4), "gcp", True, "installed as a package"),
        ("auto", True, (3, 1), None, True, "installed as a package"),
        ("auto", True, (3, 1), "gcp", False, "Airflow 3.1"),
        ("auto", False, (3, 3), None, False, "not installed"),
        ("deferred", False, (3, 1), None, True, "the target says so"),
        ("deferred", True, (3, 1), "gcp", False, "Airflow 3.1"),
        ("reschedule", True, (3, 3), None, False, "the target says so"),
    ],
)
def test_choice(
    waiting: str, installed: bool, airflow: tuple[int, ...], connection: str | None, deferred: bool, why: str
) -> None:
    choice = choose(target(waiting=waiting, connection=connection), installed=installed, airflow=airflow)
    assert choice.deferred is deferred
    assert why in str(choice)


def test_a_plugins_folder_is_no_installation() -> None:
    assert not is_installed()


# ---------------------------------------------------------------- the trigger


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test is about wakes its task, also where a disk stands still for half a minute."""
    monkeypatch.setattr(triggers, "SILENT_SECONDS", 3600.0)
    monkeypatch.setattr(triggers, "LOOK_SECONDS", 3600.0)


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptDir:
    """A job that runs: its order, lease and heartbeat are there."""
    found = RunDir(FileStore(tmp_path), NAME).attempt("run_job", 1)
    order = JobOrder(
        cluster=NAME,
        owner="0" * 16,
        job="run_job",
        attempt=1,
        script="trips.py",
        workers=WorkersPlan(minimum=1, maximum=1, cores=1, memory=10**9),
        limits=Limits(start=60.0, job=600.0, stall=0.0),
        code="code/x.zip",
        lease_ttl=60.0,
        expires_at=Timestamp(NOW + 3600),
        at=NOW,
    )
    assert found.create("job.json", order)
    found.put("lease.json", Lease(seq=1, writer=BY, ttl_s=60.0))
    beat(found, 1)
    return found


def beat(attempt: AttemptDir, number: int) -> None:
    attempt.put("status.json", Status(seq=number, at=Timestamp(NOW + number), phase=Phase.RUN, elapsed=float(number)))


def trigger(attempt: AttemptDir, since: float | None = None) -> JobTrigger:
    handle = Handle(name=NAME, target=target(Path(attempt.store.url.removeprefix("file://"))))
    made = JobTrigger(
        handle=handle.to_json(), job="run_job", attempt=1, by=BY, since=time.time() if since is None else since
    )
    made._log = logging.getLogger("airflow.task.mayfly")  # Airflow's own goes past pytest
    return made


PATIENCE = 200.0
"""Seconds; only turns a hang into a failure."""


async def event(waiting: JobTrigger) -> str:
    async with asyncio.timeout(PATIENCE):
        found = [each.payload["reason"] async for each in waiting.run()]
    (reason,) = found
    return str(reason)


async def lease_is_renewed(attempt: AttemptDir, *, times: int = 2) -> None:
    lease = attempt.lease()
    assert lease is not None
    async with asyncio.timeout(PATIENCE):
        while (now := attempt.lease()) is None or now.seq < lease.seq + times:
            await asyncio.sleep(0.01)


def end(attempt: AttemptDir) -> None:
    attempt.create(
        "record.json",
        Record(cluster=NAME, job="run_job", attempt=1, outcome=Outcome.SUCCESS, started_at=NOW, ended_at=NOW),
    )


def test_round_trip(attempt: AttemptDir) -> None:
    """As Airflow stores it and makes it anew in a triggerer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow 3.1 about its own models
        from airflow.models.trigger import Trigger

        made = trigger(attempt, since=1_790_000_000.25)
        made.not_before = 1_790_000_008.5
        stored = Trigger.from_object(made)
    module, _, name = stored.classpath.rpartition(".")
    again = getattr(import_module(module), name)(**stored.kwargs)
    assert type(again) is JobTrigger
    assert again.serialize() == made.serialize()
    assert Handle.from_json(again.handle) == Handle.from_json(made.handle)


def test_wakes_when_the_job_has_ended_and_shows_its_log_before(
    attempt: AttemptDir, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> str:
        waiting = asyncio.create_task(event(trigger(attempt)))
        await lease_is_renewed(attempt)
        attempt.store.put(f"{attempt.path}/log/000000.txt", b"hello from the script\n")
        await lease_is_renewed(attempt)
        end(attempt)
        return await waiting

    caplog.set_level(logging.INFO)
    assert asyncio.run(story()) == "the job has ended"
    assert caplog.text.count("hello from the script") == 1
    lease = attempt.lease()
    assert lease is not None and (lease.segment, lease.writer) == (1, BY), "the task goes on where the trigger stopped"


def test_wakes_when_the_run_is_closing(attempt: AttemptDir) -> None:
    attempt.rundir.create("closing.json", Closing(at=NOW, by="somebody"))
    assert asyncio.run(event(trigger(attempt))) == "the run is closing"


def test_wakes_nobody_too_soon(attempt: AttemptDir) -> None:
    end(attempt)
    made = trigger(attempt)
    made.not_before = began = time.time() + 0.5
    assert asyncio.run(event(made)) == "the job has ended"
    assert time.time() >= began


def test_wakes_when_there_is_no_attempt(attempt: AttemptDir, tmp_path: Path) -> None:
    (tmp_path / attempt.path / "job.json").unlink()
    assert asyncio.run(event(trigger(attempt))) == "there is no such attempt"


def test_wakes_when_the_heartbeat_stops(attempt: AttemptDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "SILENT_SECONDS", 0.5)
    fast = trigger(attempt)
    fast.handle = Handle(name=NAME, target=_with(fast, status=0.001)).to_json()
    beating = True
    beats_before_each_look(fast, attempt, lambda: beating)

    async def story() -> str:
        nonlocal beating
        waiting = asyncio.create_task(event(fast))
        await asyncio.sleep(1.5)
        assert not waiting.done(), "it beat all the time"
        beating = False
        return await waiting

    assert asyncio.run(story()) == "time to look at the backend"


def beats_before_each_look(made: JobTrigger, attempt: AttemptDir, lives: Callable[[], bool] = lambda: True) -> None:
    """A driver that never beats too late, whatever else this machine does."""
    looked, numbers = made._look, count(2)

    def look(handle: Handle) -> Any:
        if lives():
            beat(attempt, next(numbers))
        return looked(handle)

    made._look = look  # type: ignore[method-assign]


def _with(made: JobTrigger, **timing: Any) -> FrozenTarget:
    found = Handle.from_json(made.handle).target
    return replace(found, timing=replace(found.timing, **timing))


def test_wakes_long_before_the_lease_would_be_stale(attempt: AttemptDir) -> None:
    made = trigger(attempt)
    made.handle = Handle(name=NAME, target=_with(made, lease_ttl=0.9)).to_json()
    beats_before_each_look(made, attempt)  # so nothing else wakes it
    assert asyncio.run(event(made)) == "time to look at the backend"


def test_cancellation_is_passed_on_and_changes_nothing(attempt: AttemptDir) -> None:
    async def story() -> None:
        waiting = asyncio.create_task(event(trigger(attempt)))
        await lease_is_renewed(attempt)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(story())
    names = {path.rsplit("/", 1)[-1] for path in attempt.store.list("runs/")}
    assert names == {"job.json", "lease.json", "status.json"}


def test_two_at_once_do_no_harm(attempt: AttemptDir) -> None:
    """A triggerer that was taken for dead goes on beside its successor."""

    async def story() -> list[str]:
        both = [asyncio.create_task(event(trigger(attempt))) for _ in range(2)]
        await lease_is_renewed(attempt, times=6)
        end(attempt)
        return await asyncio.gather(*both)

    assert asyncio.run(story()) == ["the job has ended"] * 2


def test_a_damaged_or_absent_store_is_unknown(
    attempt: AttemptDir, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = tmp_path / attempt.path / "record.json"
    record.write_text("{half")

    caplog.set_level(logging.INFO)

    async def story() -> str:
        waiting = asyncio.create_task(event(trigger(attempt)))
        async with asyncio.timeout(PATIENCE):
            while "asking again" not in caplog.text:
                await asyncio.sleep(0.01)
        assert not waiting.done()
        record.unlink()
        end(attempt)
        return await waiting

    assert asyncio.run(story()) == "the job has ended"


@pytest.fixture
def pipe(attempt: AttemptDir, tmp_path: Path) -> Iterator[Path]:
    """A file that blocks its reader until somebody writes."""
    path = tmp_path / attempt.path / "record.json"
    os.mkfifo(path)
    yield path
    while True:  # whoever still reads shall end
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return
        time.sleep(0.01)


def test_a_store_that_hangs_blocks_no_event_loop(
    attempt: AttemptDir, pipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(triggers, "LOOK_SECONDS", 0.1)

    async def story() -> str:
        made = trigger(attempt)
        made.handle = Handle(name=NAME, target=_with(made, lease_ttl=3.0)).to_json()
        waiting = asyncio.create_task(event(made))
        while "no answer within" not in caplog.text:  # a loop that is blocked comes back to us too late for this
            assert not waiting.done()
            await asyncio.sleep(0.01)
        return await waiting

    assert asyncio.run(story()) == "time to look at the backend", "and the pipe's reader waits still"


def test_looks_give_results_errors_and_deadlines() -> None:
    async def story() -> None:
        looks = Looks(threads=1)
        assert await looks.do(lambda: 7, seconds=PATIENCE) == 7
        with pytest.raises(ZeroDivisionError):
            await looks.do(lambda: 1 // 0, seconds=PATIENCE)
        answer = threading.Event()
        with pytest.raises(LookTooLong):
            await looks.do(answer.wait, seconds=0.05)
        began: list[int] = []
        with pytest.raises(LookTooLong):  # the only thread is still busy
            await looks.do(lambda: began.append(1), seconds=0.05)
        answer.set()
        assert await looks.do(lambda: 8, seconds=PATIENCE) == 8
        assert not began, "what nobody waits for is not begun"

    asyncio.run(story())
