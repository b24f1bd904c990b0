"""What is taken for a leak, and what is not: run directories as a crash, a retry or a bad disk leaves them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.backends.base import ClusterView
from mayfly.backends.local import LocalBackend
from mayfly.contract import Ack, Closing, FailureClass, FrozenTarget, Timestamp
from mayfly.states import ClusterState
from mayfly.steps.inventory import Leak, Unjudged, end_leak, leaks, list_runs
from tests.backends.conformance import make_order
from tests.backends.left import AGO, NOW, attempt, damage, living
from tests.backends.on_dataproc import done, make_target
from tests.emulators.dataproc.client import Emulator

LOST = FailureClass.ORCHESTRATOR_LOST


@pytest.fixture
def target(tmp_path: Path) -> FrozenTarget:
    return FrozenTarget(
        name="local",
        backend="local",
        launcher="processes",
        staging=f"file://{tmp_path}/staging",
        options={"state_dir": str(tmp_path / "state")},
    )


def judged(*found: Leak | Unjudged) -> list[tuple[str, str]]:
    return sorted((each.name, each.reason if isinstance(each, Leak) else each.problem) for each in found)


def test_a_run_whose_orchestrator_never_came_back_leaks(target: FrozenTarget, tmp_path: Path) -> None:
    run = living(target, tmp_path)
    attempt(run, 1, LOST)
    assert judged(*leaks(target, now=NOW)) == [(run.plan.name, "no orchestrator has asked for it for 3600 s")]
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


class GoesSlowly(LocalBackend):
    """A delete call only begins to delete, as on a cloud."""

    calls = 0

    def delete(self, name: str, *, owner: str) -> ClusterView:
        self.calls += 1
        view = super().delete(name, owner=owner)
        return view if self.calls > 2 else replace(view, state=ClusterState.DELETING)


def test_a_cluster_that_has_a_receipt_is_not_called_ended_before_it_is(target: FrozenTarget, tmp_path: Path) -> None:
    run = living(target, tmp_path)
    done(lambda: run.delete("test"))
    leak, backend = Leak(name=run.plan.name, reason="", run=run, owner=run.plan.owner), GoesSlowly(target)
    found = [end_leak(leak, backend, by="test reap") for _ in range(3)]
    assert found == [None, None, run.dir.receipt()]


# ---------------------------------------------------------------- damaged files


@pytest.mark.parametrize("name", ["plan.json", "closing.json", "calls/1.json", "jobs/run_job/1/record.json"])
def test_a_damaged_run_is_named_and_hides_no_other(target: FrozenTarget, tmp_path: Path, name: str) -> None:
    damaged, lost = (living(target, tmp_path, run_id=run_id) for run_id in ("damaged", "lost"))
    attempt(damaged, 1, None)
    attempt(lost, 1, LOST)
    damage(damaged, name)
    found = {each.name: each for each in leaks(target, now=NOW)}
    assert found.keys() == {damaged.plan.name, lost.plan.name}
    assert isinstance(found[lost.plan.name], Leak)
    unjudged = found[damaged.plan.name]
    assert isinstance(unjudged, Unjudged)
    assert f"{damaged.plan.name}/{name}" in unjudged.problem


@pytest.mark.parametrize("name", ["plan.json", "calls/1.json", "jobs/run_job/1/record.json"])
def test_what_has_expired_is_ended_whatever_is_damaged(target: FrozenTarget, tmp_path: Path, name: str) -> None:
    run = living(target, tmp_path)
    attempt(run, 1, None)
    damage(run, name)
    (leak,) = leaks(target, now=run.plan.expires_at + 5)
    assert isinstance(leak, Leak) and leak.reason.startswith("expired")


def test_a_deletion_that_never_ended_is_a_leak_beside_a_damaged_record(target: FrozenTarget, tmp_path: Path) -> None:
    run = living(target, tmp_path)
    attempt(run, 1, None)
    damage(run, "jobs/run_job/1/record.json")
    run.dir.create("closing.json", Closing(at=Timestamp(NOW - AGO), by="a delete that died"))
    assert judged(*leaks(target, now=NOW)) == [(run.plan.name, "its deletion began 3600 s ago and never ended")]


def test_a_closed_run_is_not_asked_for_its_records(target: FrozenTarget, tmp_path: Path) -> None:
    run = living(target, tmp_path)
    attempt(run, 1, None)
    done(lambda: run.delete("test"))
    damage(run, "jobs/run_job/1/record.json")
    assert list(leaks(target, now=NOW)) == []


# ---------------------------------------------------------------- places that share a storage


@pytest.fixture
def second(target: FrozenTarget, tmp_path: Path) -> FrozenTarget:
    """Another place, whose runs are kept in the same storage."""
    return replace(target, name="second", options={"state_dir": str(tmp_path / "elsewhere")})


def names(target: FrozenTarget, *beside: FrozenTarget) -> list[tuple[str, bool]]:
    """What stands in the target's list, and whether its cluster was found."""
    return [(item.name, item.cluster is not None) for item in list_runs(target, beside=beside)]


def test_a_run_stands_in_the_list_of_its_own_place(target: FrozenTarget, second: FrozenTarget, tmp_path: Path) -> None:
    one, other = living(target, tmp_path), living(second, tmp_path, run_id="other")
    assert names(target, target, second) == [(one.plan.name, True)]
    assert names(second, target, second) == [(other.plan.name, True)]
    shutil.rmtree(tmp_path / "staging" / "runs" / other.plan.name)
    assert names(target, target, second) == [(one.plan.name, True)]
    assert names(second, target, second) == [(other.plan.name, True)], "its cluster is there all the same"
    expired = other.plan.expires_at + 5
    reason = "expired, and its run directory is gone"
    assert judged(*leaks(second, beside=(target, second), now=expired)) == [(other.plan.name, reason)]


def test_a_run_of_a_place_that_is_no_target_any_more_is_judged_where_it_is(
    target: FrozenTarget, second: FrozenTarget, tmp_path: Path
) -> None:
    third = replace(target, name="third", options={"state_dir": str(tmp_path / "third")})
    run = living(second, tmp_path)
    assert names(target, target, third) == [(run.plan.name, True)], "the first target of the storage lists it"
    assert names(third, target, third) == []
    done(lambda: run.delete("test"))
    assert names(target, target, third) == [(run.plan.name, False)]


def test_a_run_that_cannot_be_read_is_listed_once(target: FrozenTarget, second: FrozenTarget, tmp_path: Path) -> None:
    run = living(target, tmp_path)
    done(lambda: run.delete("test"))
    damage(run, "plan.json")
    assert names(target, target, second) == [(run.plan.name, False)]
    assert names(second, target, second) == []


def test_two_regions_that_share_a_bucket_are_two_places(emulator: Emulator, bucket: str, tmp_path: Path) -> None:
    first, other = (
        replace(make_target(f"{bucket}/both", region=region), name=region)
        for region in ("europe-west3", "europe-west1")
    )
    run = living(other, tmp_path)
    assert names(first, first, other) == []
    assert names(other, first, other) == [(run.plan.name, True)]


def test_targets_of_one_place_list_the_same(target: FrozenTarget, tmp_path: Path) -> None:
    large = replace(target, name="large", max_workers=100, connection="somebody_else")
    run = living(target, tmp_path)
    assert names(target, target, large) == names(large, target, large) == [(run.plan.name, True)]
