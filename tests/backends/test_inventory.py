"""What is taken for a leak, and what is not: run directories as a crash, a retry or a bad disk leaves them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mayfly.contract import Ack, Failure, FailureClass, FrozenTarget, Identity, Outcome, Record, Timestamp
from mayfly.spec.job import ClusterSpec, JobSpec, WorkerSpec, WorkersRange
from mayfly.steps.inventory import Leak, leaks
from mayfly.steps.lifecycle import Run
from mayfly.steps.planning import plan_step
from tests.backends.conformance import make_order

NOW = time.time()
AGO = 3600.0
"""Seconds; longer than anybody is waited for, and shorter than a run may take."""


@pytest.fixture
def target(tmp_path: Path) -> FrozenTarget:
    return FrozenTarget(
        name="local",
        backend="local",
        launcher="processes",
        staging=f"file://{tmp_path}/staging",
        options={"state_dir": str(tmp_path / "state")},
    )


def living(target: FrozenTarget, folder: Path, *, run_id: str = "run") -> Run:
    """A run whose cluster is there; it expires in a day."""
    (folder / "job").mkdir(exist_ok=True)
    (folder / "job" / "job.py").touch()
    job = JobSpec(
        name="case",
        folder=folder / "job",
        script="job.py",
        cluster=ClusterSpec(workers=WorkersRange(minimum=1, maximum=1), worker=WorkerSpec(cores=1, memory=10**9)),
    )
    identity = Identity(installation="test", dag_id="dag", run_id=run_id, group="cluster")
    poll = plan_step(job=job, target=target, identity=identity, home=folder, by="test plan", max_age=86400.0)
    run = Run.open(poll.result)
    assert run.create("test create").done
    return run


def attempt(run: Run, number: int, failure: FailureClass | None, *, ago: float = AGO, job: str = "run_job") -> None:
    """The attempt ended so long ago, with this class of failure; None = well."""
    make_order(run.plan.target, run.plan, job=job, attempt=number)
    ended = Timestamp(NOW - ago)
    record = Record(
        cluster=run.plan.name,
        job=job,
        attempt=number,
        outcome=Outcome.FAILED if failure else Outcome.SUCCESS,
        failure=Failure(cls=failure, retryable=True) if failure else None,
        started_at=Timestamp(ended - 60),
        ended_at=ended,
    )
    run.dir.attempt(job, number).create("record.json", record)


LOST = FailureClass.ORCHESTRATOR_LOST


def test_a_run_whose_orchestrator_never_came_back_leaks(target: FrozenTarget, tmp_path: Path) -> None:
    run = living(target, tmp_path)
    attempt(run, 1, LOST)
    (leak,) = leaks(target, now=NOW)
    assert isinstance(leak, Leak)
    assert (leak.name, leak.reason) == (run.plan.name, "no orchestrator has asked for it for 3600 s")
    assert list(leaks(target, now=NOW - AGO + 60)) == [], "it may come back"


def test_an_attempt_that_runs_after_a_lost_one_is_left_alone(target: FrozenTarget, tmp_path: Path) -> None:
    run = living(target, tmp_path)
    attempt(run, 1, LOST)
    make_order(target, run.plan, attempt=2)
    assert list(leaks(target, now=NOW)) == []


@pytest.mark.parametrize("failure", [None, FailureClass.WORKER_LOST])
def test_only_the_last_attempt_says_whether_anybody_is_there(
    target: FrozenTarget, tmp_path: Path, failure: FailureClass | None
) -> None:
    run = living(target, tmp_path)
    attempt(run, 1, LOST, ago=2 * AGO)
    attempt(run, 2, failure)
    assert list(leaks(target, now=NOW)) == []


def test_the_last_attempt_is_that_of_the_last_job(target: FrozenTarget, tmp_path: Path) -> None:
    """Jobs of one cluster run one after another; their keys say nothing of the order."""
    run = living(target, tmp_path)
    attempt(run, 1, None, job="a_second", ago=AGO)
    attempt(run, 1, LOST, job="first", ago=2 * AGO)
    assert list(leaks(target, now=NOW)) == []
    attempt(run, 2, LOST, job="first", ago=AGO / 2)
    assert len(list(leaks(target, now=NOW))) == 1


def test_an_orchestrator_that_has_heard_of_the_end_is_back(target: FrozenTarget, tmp_path: Path) -> None:
    """The next try starts the next attempt, as late as the job's own retry delay says."""
    run = living(target, tmp_path)
    attempt(run, 1, LOST)
    run.dir.attempt("run_job", 1).create("ack.json", Ack(by_try=1, at=Timestamp(NOW - 60)))
    assert list(leaks(target, now=NOW)) == []
    assert len(list(leaks(target, now=NOW + AGO))) == 1
