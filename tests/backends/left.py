"""Runs as they are found by whoever is on call: a cluster, perhaps, and files; no process works on them."""

from __future__ import annotations

import time
from pathlib import Path

from mayfly.contract import Failure, FailureClass, FrozenTarget, Identity, Outcome, Record, Timestamp
from mayfly.spec.job import ClusterSpec, JobSpec, WorkerSpec, WorkersRange
from mayfly.steps.lifecycle import Run
from mayfly.steps.planning import plan_step
from tests.backends.conformance import make_order
from tests.backends.on_dataproc import done

NOW = time.time()
AGO = 3600.0
"""Seconds; longer than anybody is waited for, and shorter than a run may take."""


def living(target: FrozenTarget, folder: Path, *, run_id: str = "run") -> Run:
    """A run whose cluster is there; it expires in a day."""
    (folder / "job").mkdir(exist_ok=True)
    (folder / "job" / "job.py").touch()
    job = JobSpec(
        name="case",
        folder=folder / "job",
        script="job.py",
        target=target.name,
        targets=(target.name,),
        cluster=ClusterSpec(workers=WorkersRange(minimum=1, maximum=1), worker=WorkerSpec(cores=1, memory=10**9)),
    )
    identity = Identity(installation="test", dag_id="dag", run_id=run_id, group="cluster")
    poll = plan_step(job=job, target=target, identity=identity, home=folder, by="test plan", max_age=86400.0)
    run = Run.open(poll.result)
    done(lambda: run.create("test create"))
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


def damage(run: Run, name: str) -> None:
    run.store.put(f"{run.dir.root}/{name}", b'{"half')
