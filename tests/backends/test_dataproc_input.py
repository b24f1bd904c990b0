"""Bad input on the backend dataproc: said by whoever can act on it, and nothing is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mayfly.backends.base import open_backend
from mayfly.backends.dataproc import DataprocBackend
from mayfly.contract import (
    FailureClass,
    FrozenTarget,
)
from mayfly.errors import (
    BackendRefused,
    ClusterFailed,
    NotOurs,
    PlanError,
)
from mayfly.spec.job import ClusterSpec, WorkerSpec
from mayfly.staging.stores import open_store
from mayfly.states import ClusterState, JobState
from mayfly.steps.inventory import leaks
from scripts.cloud.object_store import ObjectStore
from tests.backends.conformance import make_order, make_plan, wait_for
from tests.backends.on_dataproc import (
    Project,
    done,
    make_target,
    wait_for_state,
)
from tests.emulators.crooked import Fault, crooked
from tests.emulators.dataproc.client import Emulator

pytestmark = pytest.mark.timeout(900)


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
