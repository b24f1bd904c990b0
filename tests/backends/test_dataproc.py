"""The backend dataproc: the conformance suite on the emulated API, and single verbs where only a cloud goes wrong."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.api_core.exceptions import ResourceExhausted
from google.cloud import dataproc_v1 as sdk

from mayfly.backends.dataproc import DataprocBackend, view
from mayfly.contract import (
    FailureClass,
    FrozenTarget,
    JobOrder,
    Plan,
    Timestamp,
    WorkersPlan,
)
from mayfly.errors import (
    BackendBusy,
    BackendRefused,
    BackendUnavailable,
    CredentialsUnavailable,
)
from mayfly.gcp.sizing import plan_nodes
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import open_store
from mayfly.states import ClusterState, JobState
from mayfly.steps.attempts import record_of_the_dead
from tests.backends.conformance import BackendConformance, make_order, make_plan, wait_for
from tests.backends.on_dataproc import (
    Project,
    delete,
    done,
    make_target,
    wait_for_state,
)
from tests.emulators.dataproc.client import Emulator
from tests.unit.test_gcp_calls import Api

pytestmark = pytest.mark.timeout(900)
PATIENT = 20.0
"""Seconds of a verb in which one call is surely answered, on a machine with much else to do."""


class TestConformance(BackendConformance):
    """With a folder as staging, which "nodes" that are processes of this machine see, too."""

    @pytest.fixture
    def target(self, emulator: Emulator, tmp_path: Path) -> FrozenTarget:
        return make_target(f"file://{tmp_path / 'staging'}")


def with_a_job(emulator: Emulator, target: FrozenTarget, backend: DataprocBackend) -> tuple[Plan, JobOrder]:
    """A cluster that runs, and on it a job that sleeps for long."""
    emulator.rule(on="job", do="body", seconds=600.0)
    plan = make_plan(target)
    backend.create(plan)
    wait_for_state(backend, plan.name, ClusterState.RUNNING)
    order, rundir = make_order(target, plan)
    backend.submit(order, rundir=rundir)
    return plan, order


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
    busy, backend = (DataprocBackend(make_target(bucket, call_deadline=4.0)) for _ in range(2))
    plan = make_plan(backend.target)
    # Says so at once: an answer that a loaded machine brings late would rightly make it unknown.
    busy.calls.clusters = SimpleNamespace(create_cluster=Api(("RESOURCE_EXHAUSTED", "too many")))  # type: ignore[assignment]
    with pytest.raises(BackendBusy, match=r"within 4 s; the last one was RESOURCE_EXHAUSTED"):
        busy.create(plan)
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
        Project(tmp_path / name, make_target(f"{bucket}/{name}", call_deadline=PATIENT)).plan() for name in "ab"
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
        wait_for(lambda plan=plan: delete(backend, plan), what="gone")  # type: ignore[misc]
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
