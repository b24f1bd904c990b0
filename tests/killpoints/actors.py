"""What the harness runs: one run's steps as separate actors, a stand-in driver, and a cloud that forgets names.

An actor is what an Airflow task is: one step, poked until done, in a process of its own that may be killed anywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mayfly.backends.base import ClusterView
from mayfly.backends.local import LocalBackend
from mayfly.contract import Failure, FailureClass, FrozenTarget, Identity, JobOrder, Plan, Timing
from mayfly.errors import MayflyError
from mayfly.spec.job import ClusterSpec, JobSpec, WorkerSpec, WorkersRange
from mayfly.staging.stores import open_store
from mayfly.states import ClusterState
from mayfly.steps.lifecycle import Handle, JobRequest, Run
from mayfly.steps.planning import plan_step
from mayfly.steps.poke import Poll
from mayfly.steps.reporting import report

STEPS = ("plan", "create", "job", "collect", "delete", "report")
TEARDOWN = ("collect", "delete", "report")
RETRIES = {"plan": 2, "create": 2, "job": 1, "collect": 0, "delete": 5, "report": 2}
"""As the task group sets them (`job` as in the spec below)."""

# In the driver's place: keeps the real driver's promises (at most once an attempt, ends when asked), runs no Dask.
DRIVER = """
import json, os, pathlib, sys, time
rundir, job, attempt = sys.argv[1:]
run = pathlib.Path(rundir.removeprefix("file://"))
folder = run / "jobs" / job / attempt
try:
    os.close(os.open(folder / "started.json", os.O_CREAT | os.O_EXCL))
except FileExistsError:
    sys.exit(17)
with open(run.parents[2] / "ran.txt", "a") as f:
    f.write(f"{run.name} {job} {attempt}\\n")
outcome, seq, until, closing = "success", 0, time.monotonic() + 10, None
while seq < 4 and outcome == "success" and time.monotonic() < until:  # polled twice, however slow or quick all is here
    time.sleep(0.02)
    if (run / "closing.json").exists():  # looked at now and then, as by the real one: who closes has time to cancel
        closing = closing or time.monotonic()
    if (folder / "cancel.json").exists() or (closing and time.monotonic() - closing > 5):
        outcome = "cancelled"
    try:
        seq = json.loads((folder / "lease.json").read_text())["seq"]
    except (OSError, ValueError):
        pass
failure = None if outcome == "success" else {"cls": "cancelled"}
(folder / ".record").write_text(json.dumps({
    "cluster": run.name, "job": job, "attempt": int(attempt), "outcome": outcome, "failure": failure,
    "exit_code": 0, "started_at": "2026-11-21T10:00:00Z", "ended_at": "2026-11-21T10:00:01Z"}))
(folder / ".record").rename(folder / "record.json")
"""


class StandInDriver(LocalBackend):
    """The local backend with `DRIVER` in the driver's place."""

    def submit(self, order: JobOrder, *, rundir: str) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("lib/mayfly/__init__.py", "")
            archive.writestr("lib/mayfly/driver/__init__.py", "")
            archive.writestr("lib/mayfly/driver/__main__.py", DRIVER)
        open_store(self.target.staging).create("code/stand-in.zip", buffer.getvalue())
        super().submit(replace(order, code="code/stand-in.zip"), rundir=rundir)


class ForgetsNames(StandInDriver):
    """As a cloud does: a deleted name is free again, so that a late create call succeeds. Absence must settle."""

    settle_seconds = 0.4

    def delete(self, name: str, *, owner: str) -> ClusterView:
        view = super().delete(name, owner=owner)
        if view.state is ClusterState.ABSENT:
            (self._folder(name) / "entry.json").unlink(missing_ok=True)
        return view


class DeletesSlowly(ForgetsNames):
    """As a cloud does: a delete call begins to delete, and machines are there for a while yet."""

    slowness_seconds = 0.1

    def delete(self, name: str, *, owner: str) -> ClusterView:
        asked = self._folder(name) / "asked"
        if self.describe(name).state is not ClusterState.ABSENT:
            if not asked.exists():
                asked.touch()
                return replace(self.describe(name), state=ClusterState.DELETING)
            if time.time() - asked.stat().st_mtime < self.slowness_seconds:
                return replace(self.describe(name), state=ClusterState.DELETING)
        return super().delete(name, owner=owner)


class ComesUpBroken(StandInDriver):
    """Its machines are there, and no cluster comes of them: somebody must say why, and delete them."""

    def create(self, plan: Plan) -> ClusterView:
        return self._broken(super().create(plan))

    def describe(self, name: str) -> ClusterView:
        return self._broken(super().describe(name))

    def explain(self, name: str) -> Failure | None:
        return Failure(cls=FailureClass.INIT_ACTION, evidence=("no route to host",))

    @staticmethod
    def _broken(view: ClusterView) -> ClusterView:
        return replace(view, state=ClusterState.ERROR) if view.state is ClusterState.RUNNING else view


@dataclass(frozen=True, kw_only=True)
class World:
    """One run in one folder."""

    folder: Path
    backend: str
    timing: Timing = field(default_factory=lambda: Timing(stop_grace=0.3))
    script: str = ""
    patience: float = 120.0
    """Seconds for one step."""

    @property
    def target(self) -> FrozenTarget:
        return FrozenTarget(
            name="local",
            backend=self.backend,
            launcher="processes",
            staging=f"file://{self.folder}/staging",
            options={"state_dir": str(self.folder / "state")},
            timing=self.timing,
        )

    @property
    def spec(self) -> JobSpec:
        job = self.folder / "job"
        job.mkdir(exist_ok=True)
        (job / "job.py").write_text(self.script)
        cluster = ClusterSpec(workers=WorkersRange(minimum=1, maximum=1), worker=WorkerSpec(cores=1, memory=10**9))
        return JobSpec(name="case", folder=job, script="job.py", cluster=cluster, retries=RETRIES["job"])

    def ran(self) -> list[str]:
        """One line "cluster job attempt" for each time the job ran."""
        path = self.folder / "ran.txt"
        return path.read_text().splitlines() if path.exists() else []

    # -- what tasks leave for each other: states, and plan's return value

    def state(self, step: str) -> str:
        path = self.folder / f"state-{step}"
        return path.read_text() if path.exists() else "none"

    def set_state(self, step: str, state: str) -> None:
        (self.folder / f"state-{step}").write_text(state)

    def handle(self) -> Handle:
        return Handle.from_json(json.loads((self.folder / "handle.json").read_text()))


def perform(world: World, step: str, *, try_number: int) -> None:
    """One try of one step; its state is left for the others, as Airflow keeps it."""
    by = f"{step} try {try_number} pid {os.getpid()}"
    try:
        result = _until_done(_poke(world, step, try_number=try_number, by=by), seconds=world.patience)
    except MayflyError as error:
        world.set_state(step, "failed")
        (world.folder / f"error-{step}-{try_number}").write_text(f"{type(error).__name__}: {error}")
        return
    if step == "plan":
        beside = world.folder / f".handle-{os.getpid()}"
        beside.write_text(json.dumps(result.to_json()))
        beside.rename(world.folder / "handle.json")
    if step == "report":
        (world.folder / "verdict").write_text(result.word)
    world.set_state(step, "success")


def _poke(world: World, step: str, *, try_number: int, by: str) -> Callable[[], Poll]:
    if step == "plan":
        # Names are of this world alone: another run of these tests on this machine must not end our drivers as its own.
        here = hashlib.sha256(str(world.folder).encode()).hexdigest()[:8]
        identity = Identity(installation=f"test-{here}", dag_id="dag", run_id="run", group="cluster")
        return lambda: plan_step(
            job=world.spec, target=world.target, identity=identity, home=world.folder, by=by, attempts=2
        )
    run = Run.open(world.handle())
    if step == "create":
        return lambda: run.create(by)
    if step == "job":
        request = JobRequest(key="run_job", script="job.py")
        return lambda: run.job(request, try_number=try_number, inline=True, by=by)
    if step == "collect":
        return lambda: run.collect(by)
    if step == "delete":
        return lambda: run.delete(by)
    names = {"plan": "plan", "create": "create_cluster", "job": "run_job", "delete": "delete_cluster"}
    return lambda: report(run, {name: world.state(step) for step, name in names.items()})


def _until_done(poke: Callable[[], Poll], *, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        poll = poke()
        if poll.done:
            return poll.result
        if time.monotonic() > deadline:
            raise AssertionError(f"not done in {seconds} s: {poll.progress}")
        time.sleep(0.01)
