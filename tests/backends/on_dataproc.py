"""What tests of the backend dataproc share: targets on the emulated API, and jobs from plan to receipt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mayfly.backends.dataproc import DataprocBackend
from mayfly.contract import (
    FrozenTarget,
    Identity,
    Plan,
    Timing,
)
from mayfly.contract.nodes import GcpPlan
from mayfly.spec.job import ClusterSpec, JobSpec, WorkerSpec, WorkersRange
from mayfly.states import ClusterState
from mayfly.steps.lifecycle import JobRequest, Run
from mayfly.steps.planning import plan_step
from mayfly.steps.poke import Poll
from tests.backends.conformance import wait_for

GCP = GcpPlan(project="acme-data", region="europe-west3", call_deadline=60.0, settle=1.0)
IDENTITY = Identity(installation="test", dag_id="dag", run_id="run", group="cluster")

JOB = """
import sys
from dask.distributed import Client
with Client() as client:
    print("sum", client.submit(sum, [1, 2, 3]).result())
    open(sys.argv[1], "w").write("ran")
"""
WAITS = "import time\nprint('waiting', flush=True)\ntime.sleep(600)\n"


def make_target(staging: str, **gcp: Any) -> FrozenTarget:
    return FrozenTarget(
        name="gcp",
        backend="dataproc",
        launcher="processes",
        staging=staging,
        python=sys.executable,
        timing=Timing(poll_inline=0.1, status=0.2, stop_grace=1.0),
        gcp=replace(GCP, **gcp),
    )


class Project:
    """One job on one target, from plan to receipt by the pokes of Airflow's tasks."""

    def __init__(self, folder: Path, target: FrozenTarget) -> None:
        self.folder, self.target = folder, target
        (folder / "job").mkdir()

    def plan(self, script: str = "print(1)", **changes: Any) -> Run:
        (self.folder / "job" / "job.py").write_text(script)
        spec = {
            "name": "case",
            "folder": self.folder / "job",
            "script": "job.py",
            "targets": (self.target.name,),
            "target": self.target.name,
            "cluster": ClusterSpec(workers=WorkersRange(minimum=1, maximum=1), worker=WorkerSpec(memory=10**9)),
        }
        job = JobSpec.model_validate(spec | changes)
        handle = done(
            lambda: plan_step(job=job, target=self.target, identity=IDENTITY, home=self.folder, by="test plan")
        )
        return Run.open(handle)

    def living(self, script: str, **changes: Any) -> Run:
        run = self.plan(script, **changes)
        done(lambda: run.create("test create"))
        return run


def done(poke: Callable[[], Poll]) -> Any:
    found: list[Poll] = []

    def look() -> bool:
        found.append(poke())
        return found[-1].done

    wait_for(look, what="poke done")
    return found[-1].result


def work(run: Run, *args: str) -> Any:
    request = JobRequest(key="run_job", script="job.py", args=args)
    return done(lambda: run.job(request, try_number=1, inline=True, by="test"))


def wait_for_state(backend: DataprocBackend, name: str, state: ClusterState) -> None:
    wait_for(lambda: backend.describe(name).state is state, what=str(state))


def delete(backend: DataprocBackend, plan: Plan) -> bool:
    return backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT
