"""The backend dataproc: the conformance suite on the emulated API, and what only a cloud can do wrong."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import ResourceExhausted
from google.cloud import dataproc_v1 as sdk

from mayfly.backends.base import open_backend
from mayfly.backends.dataproc import DataprocBackend, view
from mayfly.contract import (
    Failure,
    FailureClass,
    FrozenTarget,
    Identity,
    JobOrder,
    Outcome,
    Plan,
    Timestamp,
    Timing,
    WorkersPlan,
    YarnPlan,
)
from mayfly.contract.nodes import GcpPlan
from mayfly.errors import (
    BackendBusy,
    BackendRefused,
    BackendUnavailable,
    ClusterFailed,
    CredentialsUnavailable,
    DeadlinePassed,
    JobFailed,
    NotOurs,
    NotProven,
    PlanError,
)
from mayfly.gcp.sizing import plan_nodes
from mayfly.spec.job import ClusterSpec, JobSpec, WorkerSpec, WorkersRange
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import open_store
from mayfly.states import ClusterState, JobState
from mayfly.steps.attempts import record_of_the_dead
from mayfly.steps.inventory import leaks
from mayfly.steps.lifecycle import JobRequest, Run
from mayfly.steps.planning import plan_step
from mayfly.steps.poke import Poll
from mayfly.steps.reporting import report
from scripts.cloud.object_store import ObjectStore
from tests.backends.conformance import PATIENCE, BackendConformance, make_order, make_plan, wait_for
from tests.emulators.crooked import Fault, crooked
from tests.emulators.dataproc.client import Emulator

GCP = GcpPlan(project="acme-data", region="europe-west3", call_deadline=60.0, settle=1.0)
pytestmark = pytest.mark.timeout(900)
IDENTITY = Identity(installation="test", dag_id="dag", run_id="run", group="cluster")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("dataproc"), env=dict(object_store.env), output_seconds=0.1) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The API, without any fault, cluster or count of an earlier test."""
    monkeypatch.setenv("DATAPROC_EMULATOR_HOST", running.host)
    yield running
    running.clear()
    running.settings(cluster_quota=0, read_quota=0, speed=1.0, create=0.0, cpus=0)


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


class TestConformance(BackendConformance):
    """With a folder as staging, which "nodes" that are processes of this machine see, too."""

    @pytest.fixture
    def target(self, emulator: Emulator, tmp_path: Path) -> FrozenTarget:
        return make_target(f"file://{tmp_path / 'staging'}")


# ---------------------------------------------------------------- single verbs


@pytest.fixture
def target(emulator: Emulator, bucket: str) -> FrozenTarget:
    return make_target(f"{bucket}/prod")


@pytest.fixture
def backend(target: FrozenTarget) -> DataprocBackend:
    return DataprocBackend(target)


def with_a_job(emulator: Emulator, target: FrozenTarget, backend: DataprocBackend) -> tuple[Plan, JobOrder]:
    """A cluster that runs, and on it a job that sleeps for long."""
    emulator.rule(on="job", do="body", seconds=600.0)
    plan = make_plan(target)
    backend.create(plan)
    wait_for_state(backend, plan.name, ClusterState.RUNNING)
    order, rundir = make_order(target, plan)
    backend.submit(order, rundir=rundir)
    return plan, order


def wait_for_state(backend: DataprocBackend, name: str, state: ClusterState) -> None:
    wait_for(lambda: backend.describe(name).state is state, what=str(state))


@pytest.mark.parametrize("fault", ["429", "500", "503", "504", "cut"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_call_without_an_answer_is_made_again_and_makes_one_cluster(
    emulator: Emulator, target: FrozenTarget, backend: DataprocBackend, fault: str, when: str
) -> None:
    for verb in ("CreateCluster", "DeleteCluster", "SubmitJob"):
        emulator.rule(on=verb, do=fault, when=when, times=2)
    plan = make_plan(target)
    backend.create(plan)
    wait_for_state(backend, plan.name, ClusterState.RUNNING)
    order, rundir = make_order(target, plan)
    backend.submit(order, rundir=rundir)
    wait_for(lambda: backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT, what="gone")
    assert len(emulator.history()) == len(emulator.jobs()) == 1


def test_an_api_that_takes_no_calls_has_done_nothing_and_one_that_is_silent_is_unknown(
    emulator: Emulator, bucket: str
) -> None:
    backend = DataprocBackend(make_target(bucket, call_deadline=4.0))
    plan = make_plan(backend.target)
    emulator.rule(on="CreateCluster", do="429")
    with pytest.raises(BackendBusy, match=r"within 4 s; the last one was RESOURCE_EXHAUSTED"):
        backend.create(plan)
    emulator.forget_rules()
    emulator.rule(on="*", do="hang", seconds=60.0)
    with pytest.raises(BackendUnavailable) as unknown:
        backend.describe(plan.name)
    assert not isinstance(unknown.value, BackendBusy)


def test_no_try_is_made_that_has_no_time_to_be_answered(target: FrozenTarget) -> None:
    """It would turn the "busy" of all others, which made nothing, into "nobody knows"."""
    timeouts: list[float] = []

    def busy(*, request: object, retry: object, timeout: float) -> None:
        timeouts.append(timeout)
        raise ResourceExhausted("too many")

    assert target.gcp is not None
    calls = DataprocBackend(replace(target, gcp=replace(target.gcp, call_deadline=1.0))).calls
    for _ in range(5):
        with pytest.raises(BackendBusy):
            calls.verb("create")(busy, {})
    assert min(timeouts) > 0.25


@pytest.mark.parametrize("fault", ["403", "429"])
def test_a_look_that_fails_after_the_call_says_nothing_of_the_call(
    emulator: Emulator, bucket: str, tmp_path: Path, fault: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours, theirs = (
        Project(tmp_path / name, make_target(f"{bucket}/{name}", call_deadline=4.0)).plan() for name in "ab"
    )
    emulator.rule(on="GetCluster", do=fault)
    assert not ours.create("test").done and len(emulator.clusters()) == 1
    with pytest.raises(BackendUnavailable, match="is ours is not known"):
        theirs.create("test")
    ((_, returned),), ((_, unknown),) = ours.dir.calls(), theirs.dir.calls()
    assert returned is not None and returned.called and unknown is None
    emulator.forget_rules()
    assert done(lambda: theirs.delete("test")).rule.startswith("settled")
    assert done(lambda: ours.delete("test")).rule.startswith("deleted")


def test_delete_names_the_cluster_that_was_looked_at(
    emulator: Emulator, target: FrozenTarget, backend: DataprocBackend
) -> None:
    """Between the look and the call ours goes and a namesake comes: it is not hit."""
    plan = make_plan(target)
    stranger = replace(plan, owner="stranger", labels={**plan.labels, "owner": "stranger"})
    backend.create(plan)
    wait_for_state(backend, plan.name, ClusterState.RUNNING)
    seen = backend._get(backend.calls.verb("look"), plan.name)
    wait_for(lambda: backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT, what="gone")
    backend.create(stranger)
    backend._get = lambda *_: seen  # type: ignore[method-assign]
    backend.delete(plan.name, owner=plan.owner)
    (left,) = emulator.clusters()
    assert left["state"] in ("CREATING", "RUNNING")


def test_a_permission_that_is_missing_is_named_and_nothing_is_made(
    emulator: Emulator, target: FrozenTarget, backend: DataprocBackend
) -> None:
    emulator.rule(on="CreateCluster", do="403")
    with pytest.raises(BackendRefused, match=r"lacks the permission dataproc\.clusters\.create") as refused:
        backend.create(make_plan(target))
    assert not refused.value.retryable and refused.value.sure
    assert emulator.history() == [] and emulator.count("CreateCluster") == 1


def test_expired_credentials_are_named_and_the_maximum_age_still_ends_the_cluster(
    emulator: Emulator, target: FrozenTarget, backend: DataprocBackend
) -> None:
    emulator.settings(speed=100.0)
    plan = make_plan(target)
    backend.create(plan)
    emulator.rule(on="*", do="401")
    for verb in (lambda: backend.describe(plan.name), lambda: backend.delete(plan.name, owner=plan.owner)):
        with pytest.raises(CredentialsUnavailable, match="is not let in"):
            verb()
    wait_for(lambda: not emulator.clusters(), what="gone by its maximum age")
    assert emulator.history()[0]["how_gone"] == "auto_delete_ttl"


def test_an_autoscaling_policy_is_shared_and_goes_with_its_last_user(emulator: Emulator, bucket: str) -> None:
    target = replace(make_target(f"{bucket}/prod", secondary="spot"), launcher="yarn")
    backend = DataprocBackend(target)
    plans = [_adaptive(target) for _ in range(2)]
    for plan in plans:
        backend.create(plan)
    for number, plan in enumerate(plans):
        wait_for(lambda plan=plan: _delete(backend, plan), what="gone")  # type: ignore[misc]
        backend.tidy(plan)
        left = list(backend.calls.policies.list_autoscaling_policies(parent="projects/acme-data/regions/europe-west3"))
        assert len(left) == 1 - number
    # Removed by another run between our two calls: made anew.
    emulator.rule(
        on="CreateCluster",
        do="error",
        code="INVALID_ARGUMENT",
        message="Autoscaling policy 'projects/p/regions/r/autoscalingPolicies/x' not found",
        times=1,
    )
    backend.create(plans[0])
    assert emulator.count("CreateAutoscalingPolicy") == 4


def _adaptive(target: FrozenTarget) -> Plan:
    assert target.gcp is not None
    workers = WorkersPlan(minimum=1, maximum=60, cores=1, memory=4 * 10**9)
    nodes, _ = plan_nodes(workers, gcp=target.gcp, launcher="yarn", script_memory=None)
    assert nodes.autoscaling
    return replace(make_plan(target), nodes=nodes)


def _delete(backend: DataprocBackend, plan: Plan) -> bool:
    return backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT


@pytest.mark.parametrize(
    ("state", "substate", "job", "lost"),
    [
        ("RUNNING", "UNSPECIFIED", JobState.RUNNING, ""),
        ("UPDATING", "UNSPECIFIED", JobState.RUNNING, ""),
        ("RUNNING", "UNHEALTHY", JobState.SILENT, ""),
        ("RUNNING", "STALE_STATUS", JobState.SILENT, ""),
        ("REPAIRING", "UNSPECIFIED", JobState.RUNNING, ""),
        ("STOPPED", "UNSPECIFIED", JobState.ENDED, "error: STOPPED"),
        ("ERROR", "UNSPECIFIED", JobState.ENDED, "error: ERROR"),
    ],
)
def test_a_driver_does_not_outlive_its_cluster(
    emulator: Emulator,
    target: FrozenTarget,
    backend: DataprocBackend,
    state: str,
    substate: str,
    job: JobState,
    lost: str,
) -> None:
    plan, order = with_a_job(emulator, target, backend)
    emulator.set_state(plan.name, state, substate=substate)
    wait_for(lambda: backend.poll(order).state is job, what=str(job))
    assert backend.poll(order).lost.startswith(lost) and bool(backend.poll(order).lost) is bool(lost)


def test_a_master_that_neither_dataproc_nor_the_store_hears_is_lost(
    emulator: Emulator, target: FrozenTarget, backend: DataprocBackend
) -> None:
    plan, order = with_a_job(emulator, target, backend)
    emulator.set_state(plan.name, "RUNNING", substate="UNHEALTHY")
    attempt = RunDir(open_store(target.staging), plan.name).attempt(order.job, order.attempt)
    wait_for(lambda: backend.poll(order).state is JobState.SILENT, what="silent")
    for age, dead in ((1.0, False), (22.0, False), (45.0, True)):
        record = record_of_the_dead(attempt, replace(order, at=Timestamp(time.time() - age)), backend)
        assert (record is not None) is dead
    assert record is not None and record.failure is not None
    assert record.failure.cls is FailureClass.CLUSTER_LOST and "UNHEALTHY" in record.failure.summary()


def test_a_cluster_with_too_few_primary_nodes_is_not_complete() -> None:
    made = sdk.Cluster(
        cluster_name="mf-x",
        status={"state": "RUNNING"},
        config={"worker_config": {"num_instances": 3, "instance_names": ["mf-x-w-0", "mf-x-w-2"]}},
    )
    seen = view(made)
    assert (seen.state, seen.missing) == (ClusterState.RUNNING, 1)
    assert "2 of 3 primary workers are there" in seen.detail


# ---------------------------------------------------------------- runs

JOB = """
import sys
from dask.distributed import Client
with Client() as client:
    print("sum", client.submit(sum, [1, 2, 3]).result())
    open(sys.argv[1], "w").write("ran")
"""
WAITS = "import time\nprint('waiting', flush=True)\ntime.sleep(600)\n"


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


@pytest.fixture
def project(tmp_path: Path, target: FrozenTarget) -> Project:
    return Project(tmp_path, target)


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


def test_a_job_from_plan_to_receipt(emulator: Emulator, project: Project, tmp_path: Path) -> None:
    run = project.living(JOB)
    assert run.plan.nodes is not None and run.plan.nodes.primary is None
    run.backend.quiet_seconds = PATIENCE  # from the submission to the driver's first sign of life, on any machine
    record = work(run, str(tmp_path / "out"))
    assert record.outcome is Outcome.SUCCESS and record.tasks.done >= 1
    assert (tmp_path / "out").read_text() == "ran"
    deletes: list[Poll] = []
    wait_for(lambda: deletes.append(run.delete("test")) or deletes[-1].done, what="deleted")  # type: ignore[func-returns-value]
    receipt = deletes[-1].result
    assert receipt.rule.startswith("deleted") and receipt.cost is None and receipt.billed_seconds > 0
    assert emulator.clusters() == [] and len(emulator.history()) == 1
    calls = emulator.calls()
    assert calls["SubmitJob"] == {"OK": 1}
    assert "GetJob" not in calls, "the run directory says how the job is; the API need not be asked"
    assert sum(calls["ListClusters"].values()) <= 2 + len(deletes)


@pytest.mark.parametrize(
    ("how", "detail", "cls"),
    [
        ("master lost", "is gone", FailureClass.CLUSTER_LOST),
        ("master preempted", "Instance was preempted.", FailureClass.PREEMPTED),
        ("deleted by hand", "not found in project acme-data", FailureClass.CLUSTER_LOST),
    ],
)
def test_a_cluster_that_dies_in_mid_job_is_noticed_and_named(
    emulator: Emulator, project: Project, how: str, detail: str, cls: FailureClass
) -> None:
    run = project.living(WAITS)
    request = JobRequest(key="run_job", script="job.py")
    poke = lambda: run.job(request, try_number=1, inline=True, by="test")  # noqa: E731
    wait_for(lambda: any("waiting" in line for line in poke().lines), what="job runs")
    run.backend.quiet_seconds = 2.0
    if how == "master lost":
        emulator.node(run.plan.name, "m", "lose")
    elif how == "master preempted":
        emulator.node(run.plan.name, "m", "lose")
        emulator.set_state(run.plan.name, "ERROR", detail=detail)
    else:
        wait_for(lambda: _delete(run.backend, run.plan), what="gone")  # type: ignore[arg-type]
    with pytest.raises(JobFailed) as failed:
        wait_for(lambda: poke().done, what="noticed")
    failure: Failure = failed.value.failure
    assert failure.cls is cls and not failure.retryable
    assert detail in failure.summary()
    if how == "deleted by hand":  # by somebody of whom the run directory knows nothing: red, until its maximum age
        with pytest.raises(NotProven, match="no look-up by name ever showed it"):
            done(lambda: run.delete("test"))
    else:
        assert done(lambda: run.delete("test")).rule.startswith("deleted")


def test_a_failed_init_action_is_told_before_anything_is_deleted(
    emulator: Emulator, project: Project, object_store: ObjectStore
) -> None:
    said = [f"+ step {number}" for number in range(60)] + ["sha256 of the environment is wrong"]
    emulator.rule(on="boot", do="init_fails", node="m", output="\n".join(said))
    run = project.plan()
    evidence = {"node": f"{run.plan.name}-m", "role": "Master", "ok": False, "seconds": 1.5, "reason": "bad sum"}
    run.store.put(f"{run.dir.root}/nodes/{run.plan.name}-m.json", json.dumps(evidence).encode())
    with pytest.raises(ClusterFailed) as failed:
        done(lambda: run.create("test"))
    assert failed.value.failure is not None and failed.value.failure.cls is FailureClass.INIT_ACTION
    text = str(failed.value)
    assert f"failed on {run.plan.name}-m" in text and "sha256 of the environment is wrong" in text
    assert "+ step 21" in text and "+ step 20\n" not in text
    assert "could not be set up (1.5 s): bad sum" in text
    assert len(emulator.clusters()) == 1 and not failed.value.retryable
    broken = run.dir.broken()
    assert broken is not None and broken.failure == failed.value.failure
    assert done(lambda: run.delete("test")).rule.startswith("deleted")
    assert emulator.clusters() == []
    poll = report(run, {"plan": "success", "create_cluster": "failed", "delete_cluster": "success"})
    assert not poll.result.ok and "  the cluster never came up: init action" in poll.lines
    page = (run.store.get(f"{run.dir.root}/report.html") or b"").decode()
    assert "Why the cluster never came up" in page and "sha256 of the environment is wrong" in page


def test_a_lease_in_a_bucket_is_written_once_a_second(emulator: Emulator, project: Project) -> None:
    run = project.living(WAITS)
    request = JobRequest(key="run_job", script="job.py")
    began = time.monotonic()
    for _ in range(10):
        run.job(request, try_number=1, inline=True, by="test")
    lease = run.dir.attempt("run_job", 1).lease()
    assert lease is not None and lease.seq <= 2 + time.monotonic() - began


def test_a_primary_node_that_never_comes_is_waited_for_and_then_told(
    emulator: Emulator, bucket: str, tmp_path: Path
) -> None:
    emulator.rule(on="boot", do="missing", node="w-1")
    target = replace(make_target(bucket), launcher="yarn", yarn=YarnPlan(), python="/usr/bin/python3")
    run = Project(tmp_path, target).plan(start_timeout=5.0)
    run.store.put(f"{run.dir.root}/nodes/{run.plan.name}-m.json", b"{}")
    with pytest.raises(DeadlinePassed, match=r"1 of 2 primary workers are there; set up so far: \S+-m$"):
        done(lambda: run.create("test"))
    assert done(lambda: run.delete("test")).rule.startswith("deleted")


def test_thirty_at_once_through_an_api_that_takes_no_more_calls(emulator: Emulator, tmp_path: Path) -> None:
    """Each call is refused some times; nobody fails, nobody is made twice, nothing is left."""
    target = make_target(f"file://{tmp_path / 'staging'}", call_deadline=PATIENCE)
    emulator.rule(on="CreateCluster", do="429", times=90)
    emulator.rule(on="DeleteCluster", do="429", times=60)
    emulator.rule(on="GetCluster", do="429", times=60)
    plans = [make_plan(target) for _ in range(30)]

    def live(plan: Plan) -> None:
        backend = DataprocBackend(target)
        backend.create(plan)
        wait_for(lambda: _delete(backend, plan), what="gone")

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(live, plans))
    assert len(emulator.history()) == 30 and emulator.clusters() == []


def test_what_nodes_say_of_themselves_is_shown_once(emulator: Emulator, project: Project) -> None:
    making = emulator.rule(on="boot", do="stuck")
    run = project.plan()
    lines: list[str] = []
    progress: list[str] = []

    def poke() -> bool:
        poll = run.create("test")
        lines.extend(poll.lines)
        progress.extend(filter(None, [poll.progress]))
        return poll.done

    poke()
    run.store.put(f"{run.dir.root}/nodes/mf-m.json", b'{"node": "mf-m", "ok": true, "seconds": 4.25}')
    assert not poke()
    emulator.remove_rule(making)
    wait_for(poke, what="running")
    assert [line for line in lines if "mf-m" in line] == ["node mf-m is set up (4.2 s)"]
    assert len(progress) == len(set(progress)) >= 1


# ---------------------------------------------------------------- bad input: nothing is made


@pytest.mark.parametrize(
    ("gcp", "words"),
    [
        ({"image": "2.9"}, "gcp.image"),
        ({"zone": "europe-west3-q"}, "gcp.zone"),
    ],
)
def test_what_google_does_not_know_is_refused_at_create(
    emulator: Emulator, bucket: str, tmp_path: Path, gcp: dict[str, str], words: str
) -> None:
    run = Project(tmp_path, make_target(bucket, **gcp)).plan()
    with pytest.raises(BackendRefused, match=words) as refused:
        run.create("test")
    assert not refused.value.retryable
    receipt = done(lambda: run.delete("test"))
    assert receipt.rule.startswith("never made") and receipt.billed_seconds == 0
    assert emulator.history() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cluster": ClusterSpec(worker=WorkerSpec(memory=3 * 10**12))}, "Use a target with `launcher: yarn`"),
        ({"script_memory": 10**15}, "need one machine"),
    ],
)
def test_what_fits_nowhere_is_refused_by_the_plan_before_anything_is_uploaded(
    emulator: Emulator, bucket: str, project: Project, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(PlanError, match=words):
        project.plan(**changes)
    assert emulator.history() == [] and emulator.count("CreateCluster") == 0
    assert open_store(bucket).list("") == []


def test_a_name_that_becomes_too_long_is_refused_by_the_plan(emulator: Emulator, bucket: str, tmp_path: Path) -> None:
    target = replace(make_target(bucket), prefix="a-prefix-of-20-chars")
    with pytest.raises(PlanError, match="51 are allowed; with prefix"):
        Project(tmp_path, target).plan(name="a" * 33)
    assert emulator.history() == []


def test_a_bucket_that_is_not_there_is_refused_by_the_plan(emulator: Emulator, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no-such-bucket"):
        Project(tmp_path, make_target("gs://no-such-bucket-of-ours/x")).plan()
    assert emulator.history() == [] and emulator.count("CreateCluster") == 0


def test_a_bucket_that_denies_is_refused_by_the_plan(
    emulator: Emulator, bucket: str, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = b'{"error": {"code": 403, "message": "a@b.iam does not have storage.objects.create access"}}'
    with crooked(object_store.url) as line:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", line.url)
        line.faults.append(Fault(method="POST", where="/upload/", what=403, body=denied, times=9))
        with pytest.raises(PlanError, match=r"a@b\.iam does not have storage\.objects\.create"):
            Project(tmp_path, make_target(f"{bucket}/prod")).plan()
    assert emulator.history() == [] and emulator.count("CreateCluster") == 0


def test_a_machine_type_that_is_not_there_is_refused_at_create(
    emulator: Emulator, target: FrozenTarget, backend: DataprocBackend
) -> None:
    plan = make_plan(target)
    assert plan.nodes is not None
    unknown = replace(plan.nodes, master=replace(plan.nodes.master, machine="n9-standard-4"))
    with pytest.raises(BackendRefused, match=r"n9-standard-4(.|\n)*Look at gcp\.families"):
        backend.create(replace(plan, nodes=unknown))
    assert emulator.history() == [] and emulator.clusters() == []


def test_a_region_that_is_not_there_is_refused_by_the_plan(emulator: Emulator, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"Look at gcp\.region"):
        Project(tmp_path, make_target(bucket, region="europe-west99")).plan()


def test_who_may_not_list_makes_nothing(emulator: Emulator, project: Project) -> None:
    emulator.rule(on="ListClusters", do="403")
    with pytest.raises(PlanError, match=r"lacks the permission dataproc\.clusters\.list"):
        project.plan()


def test_who_is_not_let_in_makes_nothing(emulator: Emulator, project: Project) -> None:
    emulator.rule(on="ListClusters", do="401")
    with pytest.raises(PlanError, match=r"not be looked after: .* is not let in"):
        project.plan()
    assert emulator.count("CreateCluster") == 0


def test_a_quota_is_named_and_worth_another_try(emulator: Emulator, project: Project) -> None:
    emulator.settings(cpus=1)
    run = project.plan()
    with pytest.raises((BackendRefused, ClusterFailed)) as refused:
        done(lambda: run.create("test"))
    assert refused.value.failure is not None and refused.value.failure.cls is FailureClass.QUOTA
    assert done(lambda: run.delete("test")).rule.startswith(("never made", "deleted"))


def test_two_targets_with_one_prefix_and_project_leave_each_other_alone(
    emulator: Emulator, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = Project(tmp_path / "a", make_target(f"{bucket}/a")).living("print(1)")
    second = Project(tmp_path / "b", make_target(f"{bucket}/b")).plan()
    assert first.plan.name == second.plan.name
    with pytest.raises(NotOurs, match="another owner"):
        second.create("test")
    assert done(lambda: second.delete("test")).rule.startswith("never made")
    assert list(leaks(second.plan.target)) == []  # what has its name is the first one's
    assert open_backend(first.plan.target).describe(first.plan.name).state is ClusterState.RUNNING


def test_a_driver_that_cannot_start_shows_its_own_words(
    emulator: Emulator, target: FrozenTarget, backend: DataprocBackend
) -> None:
    plan = make_plan(target)
    backend.create(plan)
    wait_for_state(backend, plan.name, ClusterState.RUNNING)
    order, rundir = make_order(target, plan)
    backend.submit(replace(order, python="/no/such/python"), rundir=rundir)
    wait_for(lambda: backend.poll(order).state is JobState.ENDED, what="ended")
    wait_for(lambda: "/no/such/python" in backend.poll(order).detail, what="its output")
