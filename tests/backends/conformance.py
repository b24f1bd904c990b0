"""What every backend must do. A backend's own test module subclasses `BackendConformance` and says how to make things.

Real drivers are not needed here: a job's code archive holds a small stand-in *program* in the driver's place, so that
the suite is about the backend alone: starting, finding, ending.
"""

from __future__ import annotations

import io
import secrets
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.backends.base import ClusterBackend, open_backend
from mayfly.contract import FrozenTarget, Identity, JobOrder, Limits, Plan, Timestamp, WorkersPlan
from mayfly.errors import NotOurs, Refused
from mayfly.gcp.sizing import plan_nodes
from mayfly.names import MANAGED_BY, cluster_name, run_key
from mayfly.staging.nodefiles import upload_node_files
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import open_store
from mayfly.states import ClusterState, JobState

STAND_IN = """
import os, signal, subprocess, sys, time, pathlib
rundir, job, attempt = arguments
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
folder = pathlib.Path(rundir.removeprefix("file://")) / "jobs" / job / attempt
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "started", "a") as f:
    f.write(f"{os.getpid()}\\n")
exec(os.environ.get("STAND_IN", ""))
time.sleep(600)
"""
ROOT = Path(__file__).resolve().parents[2]
MAIN = "import sys\nfrom mayfly.driver.supervisor import main\nmain(sys.argv[1:])\n"
WORKERS = WorkersPlan(minimum=1, maximum=1, cores=1, memory=10**9)
LIMITS = Limits(start=10.0, job=60.0, stall=0.0)
PATIENCE = 240.0
"""Seconds: for whatever should happen at once, on a machine with much else to do."""


def wait_for(condition: Callable[[], bool], *, seconds: float = PATIENCE, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.02)


class BackendConformance:
    """The suite. `target` is a fixture of the subclass."""

    @pytest.fixture
    def backend(self, target: FrozenTarget) -> ClusterBackend:
        return open_backend(target)

    @pytest.fixture
    def plan(self, target: FrozenTarget, backend: ClusterBackend) -> Iterator[Plan]:
        made: list[Plan] = []
        plan = make_plan(target)
        made.append(plan)
        yield plan
        for each in made:
            wait_for(
                lambda each=each: backend.delete(each.name, owner=each.owner).state is ClusterState.ABSENT,
                what=f"{each.name} gone",
            )

    @pytest.fixture
    def living(self, backend: ClusterBackend, plan: Plan) -> Plan:
        """The plan of a cluster that runs."""
        backend.create(plan)
        wait_for(lambda: backend.describe(plan.name).state is ClusterState.RUNNING, what="running")
        return plan

    # -- create, describe, find

    def test_create_describe_find_delete(self, backend: ClusterBackend, plan: Plan) -> None:
        assert backend.describe(plan.name).state is ClusterState.ABSENT
        assert backend.find({"run": plan.run}) == []
        backend.create(plan)
        wait_for(lambda: backend.describe(plan.name).state is ClusterState.RUNNING, what="running")
        view = backend.describe(plan.name)
        assert dict(view.labels) == dict(plan.labels)
        assert view.created_at and abs(view.created_at - time.time()) < PATIENCE
        assert [found.name for found in backend.find({**MANAGED_BY, "run": plan.run})] == [plan.name]
        assert backend.find({"run": plan.run, "owner": "somebody"}) == []
        wait_for(lambda: backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT, what="deleted")
        assert backend.describe(plan.name).state is ClusterState.ABSENT
        assert backend.find({"run": plan.run}) == []

    def test_create_again_adopts(self, backend: ClusterBackend, plan: Plan) -> None:
        first = backend.create(plan)
        second = backend.create(plan)
        assert second.created_at == pytest.approx(first.created_at, abs=0.001)
        assert len(backend.find({"run": plan.run})) == 1

    def test_another_owner_is_left_alone(self, backend: ClusterBackend, living: Plan) -> None:
        stranger = replace(living, owner="stranger", labels={**living.labels, "owner": "stranger"})
        with pytest.raises(NotOurs, match="another owner"):
            backend.create(stranger)
        with pytest.raises(NotOurs, match="another owner"):
            backend.delete(living.name, owner="stranger")
        assert backend.describe(living.name).state is ClusterState.RUNNING

    def test_delete_of_nothing_is_done(self, backend: ClusterBackend, plan: Plan) -> None:
        assert backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT
        assert backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT

    def test_a_late_create_is_refused_or_must_settle(self, backend: ClusterBackend, plan: Plan) -> None:
        """A create call that arrives after delete: refused where names retire; elsewhere there is a settle time."""
        backend.create(plan)
        wait_for(lambda: backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT, what="deleted")
        if backend.settle_seconds > 0:
            return
        with pytest.raises(Refused, match="never created again"):
            backend.create(plan)
        assert backend.find({"run": plan.run}) == []

    def test_ten_creators_make_one_cluster(self, backend: ClusterBackend, plan: Plan) -> None:
        errors: list[BaseException] = []

        def create() -> None:
            try:
                backend.create(plan)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=create) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(backend.find({"run": plan.run})) == 1

    # -- submit, poll, cancel

    def test_a_driver_runs_is_seen_and_ends_when_cancelled(
        self, backend: ClusterBackend, target: FrozenTarget, living: Plan
    ) -> None:
        order, rundir = make_order(target, living)
        assert backend.poll(order).state is JobState.NEVER_STARTED
        backend.cancel(order)
        backend.submit(order, rundir=rundir)
        wait_for(lambda: len(starts(target, order)) == 1, what="driver started")
        assert backend.poll(order).state is JobState.RUNNING
        backend.cancel(order)
        wait_for(lambda: backend.poll(order).state is JobState.ENDED, what="driver ended")
        backend.cancel(order)

    def test_submit_again_starts_nothing(self, backend: ClusterBackend, target: FrozenTarget, living: Plan) -> None:
        order, rundir = make_order(target, living)
        for _ in range(3):
            backend.submit(order, rundir=rundir)
        wait_for(lambda: bool(starts(target, order)), what="driver started")
        backend.cancel(order)
        wait_for(lambda: backend.poll(order).state is JobState.ENDED, what="driver ended")
        backend.submit(order, rundir=rundir)
        # What was asked for later has started and ended: so would have what was asked for before.
        later, _ = make_order(target, living, job="later")
        backend.submit(later, rundir=rundir)
        wait_for(lambda: bool(starts(target, later)), what="later driver started")
        backend.cancel(later)
        wait_for(lambda: backend.poll(later).state is JobState.ENDED, what="later driver ended")
        assert len(starts(target, order)) == 1

    def test_no_submit_without_a_living_cluster(
        self, backend: ClusterBackend, target: FrozenTarget, plan: Plan
    ) -> None:
        order, rundir = make_order(target, plan)
        with pytest.raises(Refused):
            backend.submit(order, rundir=rundir)
        backend.create(plan)
        wait_for(lambda: backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT, what="deleted")
        with pytest.raises(Refused):
            backend.submit(order, rundir=rundir)
        assert starts(target, order) == []

    def test_delete_ends_what_runs(self, backend: ClusterBackend, target: FrozenTarget, living: Plan) -> None:
        order, rundir = make_order(target, living)
        backend.submit(order, rundir=rundir)
        wait_for(lambda: bool(starts(target, order)), what="driver started")
        wait_for(lambda: backend.delete(living.name, owner=living.owner).state is ClusterState.ABSENT, what="deleted")
        assert backend.poll(order).state in (JobState.ENDED, JobState.NEVER_STARTED, JobState.UNKNOWN)


def make_plan(target: FrozenTarget, *, generation: int = 1) -> Plan:
    identity = Identity(installation="test", dag_id="dag", run_id=secrets.token_hex(4), group="cluster")
    owner, run = secrets.token_hex(8), run_key(identity)
    now = time.time()
    nodes = None
    if target.gcp is not None:
        setup, carrier = upload_node_files(open_store(target.staging), ROOT)
        nodes, _ = plan_nodes(WORKERS, gcp=target.gcp, launcher=target.launcher, script_memory=None)
        nodes = replace(nodes, setup=setup, carrier=carrier)
    return Plan(
        name=cluster_name(prefix=target.prefix, job="stand-in", identity=identity, generation=generation),
        generation=generation,
        identity=identity,
        run=run,
        owner=owner,
        created_at=Timestamp(now),
        expires_at=Timestamp(now + 600),
        job="stand-in",
        target=target,
        labels={**MANAGED_BY, "installation": "test", "run": run, "generation": str(generation), "owner": owner},
        workers=WORKERS,
        asked=WORKERS,
        limits=LIMITS,
        code=upload_stand_in(target),
        nodes=nodes,
        hash="0",
    )


def upload_stand_in(target: FrozenTarget) -> str:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("lib/mayfly/__init__.py", "")
        archive.writestr("lib/mayfly/driver/__init__.py", "")
        archive.writestr("lib/mayfly/driver/__main__.py", MAIN)
        archive.writestr(
            "lib/mayfly/driver/supervisor.py",
            f"def main(arguments):\n    exec({STAND_IN!r}, {{'arguments': arguments}})\n",
        )
        archive.writestr("job/job.py", "")
    open_store(target.staging).create("code/stand-in.zip", buffer.getvalue())
    return "code/stand-in.zip"


def make_order(target: FrozenTarget, plan: Plan, *, job: str = "run_job", attempt: int = 1) -> tuple[JobOrder, str]:
    order = JobOrder(
        cluster=plan.name,
        owner=plan.owner,
        job=job,
        attempt=attempt,
        script="job.py",
        workers=plan.workers,
        limits=plan.limits,
        code=plan.code,
        carrier=plan.nodes.carrier if plan.nodes else "",
        lease_ttl=60.0,
        expires_at=plan.expires_at,
        at=Timestamp(time.time()),
    )
    RunDir(open_store(target.staging), plan.name).attempt(job, attempt).create("job.json", order)
    return order, f"{target.staging}/runs/{plan.name}"


def starts(target: FrozenTarget, order: JobOrder) -> list[str]:
    """Pids of all drivers that ever started for this attempt."""
    folder = Path(target.staging.removeprefix("file://")) / "runs" / order.cluster / "jobs" / order.job
    try:
        return (folder / str(order.attempt) / "started").read_text().splitlines()
    except FileNotFoundError:
        return []
