"""No moment at which a death, or an actor that goes on late, leaves a cluster, a lie or a job that ran twice.

`make test` tries a share of the points in every mode, evenly spread; `make killpoints` tries all of them
(`TEST_ALL_KILLPOINTS=1`), and prints the list.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mayfly.backends.base import ClusterBackend, ClusterView
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import FileStore, Store
from mayfly.states import ClusterState
from mayfly.steps.deletion import Deletion
from mayfly.steps.lifecycle import Run
from tests.killpoints.actors import StandInDriver
from tests.killpoints.alone import Told
from tests.killpoints.driver import DRIVER_MODES, DriverKillPoints
from tests.killpoints.driver_tap import verbs
from tests.killpoints.harness import MODES, KillPoints, Point, Violation, spread

ALL = bool(os.environ.get("TEST_ALL_KILLPOINTS"))
SHARE = 10_000 if ALL else 14
PAIRS = 150 if ALL else 12
SEED = 20261121
DRIVER_CASES = 4
CLOUD_CASES = 12
BACKENDS = ("StandInDriver", "ForgetsNames", "DeletesSlowly")
"""Names retire; names are free again, absence must settle; deletion takes time."""


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    return points_of("StandInDriver", tmp_path_factory.mktemp("points"))


def points_of(backend: str, folder: Path) -> list[Point]:
    return KillPoints(backend=f"tests.killpoints.actors:{backend}", folder=folder).find_points()


def test_the_points_are_found_in_the_calls_of_a_run(points: list[Point]) -> None:
    """Nobody writes the list; but if a kind of call were no longer seen, the harness would be blind."""
    per_step = Counter(point.step for point in points)
    print(f"\n{len(points)} points: {dict(per_step)}")
    if ALL:
        print("\n".join(map(str, points)))
    assert set(per_step) == {"plan", "create", "job", "collect", "delete", "report"}
    calls = {point.call for point in points}
    for call in (
        *(f"backend.{verb}" for verb in verbs(ClusterBackend) if verb != "explain"),  # of broken clusters: see below
        "store.create plan.json",
        "store.create calls/1.json",
        "store.create calls/1.done.json",
        "store.create closing.json",
        "store.create receipt.json",
        "store.put jobs/run_job/1/lease.json",
        "store.create jobs/run_job/1/ack.json",
        "store.put report.html",
    ):
        assert call in calls
    assert {point.when for point in points} == {"before", "after"}


def test_a_new_verb_is_a_point_by_itself(tmp_path: Path) -> None:
    harness = KillPoints(backend="tests.killpoints.actors:StandInDriver", folder=tmp_path, sabotage=learns_verbs)
    points = harness.find_points()
    for call in ("backend.warm_up", "store.stamp somewhere"):
        for when in ("before", "after"):
            assert Point("create", call, 1, when) in points


def learns_verbs(step: str) -> None:
    """Both Protocols ask for one more, those who keep them have it, and create calls it."""
    for protocol, keeper, verb in ((ClusterBackend, StandInDriver, "warm_up"), (Store, FileStore, "stamp")):
        setattr(protocol, verb, lambda self, *args: None)
        setattr(keeper, verb, lambda self, *args: None)
    create = Run.create

    def uses_them(run: Any, by: str) -> Any:
        run.backend.warm_up()
        run.store.stamp("somewhere")
        return create(run, by)

    Run.create = uses_them  # type: ignore[method-assign]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES[1:])
def test_a_death_while_a_broken_cluster_is_explained(mode: str, tmp_path: Path) -> None:
    """Not retried: create has ended for good then."""
    harness = KillPoints(backend="tests.killpoints.actors:ComesUpBroken", folder=tmp_path)
    points = [point for point in harness.find_points() if point.call in ("backend.explain", "store.create broken.json")]
    assert {point.step for point in points} == {"create"}
    assert {(point.call, point.when) for point in points} >= {("backend.explain", when) for when in ("before", "after")}
    harness.run_all(mode, points)
    assert harness.cases and not harness.missed


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_death_anywhere(backend: str, mode: str, points: list[Point], tmp_path: Path) -> None:
    harness = KillPoints(backend=f"tests.killpoints.actors:{backend}", folder=tmp_path)
    mine = points if mode == "retry" else [point for point in points if point.step not in ("delete", "report")]
    # Another share for each backend and mode, so that together they come to most points.
    shift = (BACKENDS.index(backend) * len(MODES) + MODES.index(mode)) * 7 % len(mine)
    harness.run_all(mode, spread([*mine[shift:], *mine[:shift]], most=SHARE))
    print(f"\n{backend}, {mode}: {harness.cases} cases, {len(harness.missed)} points not come to")
    assert harness.cases >= min(SHARE, len(mine))
    assert len(harness.missed) <= harness.cases // 4, harness.missed


@pytest.mark.timeout(1500)
def test_two_deaths_in_one_run(points: list[Point], tmp_path: Path) -> None:
    """Pairs, drawn with a fixed seed: the retry dies too, or a later step does."""
    harness = KillPoints(backend="tests.killpoints.actors:ForgetsNames", folder=tmp_path)
    draw = random.Random(SEED)
    for _ in range(PAIRS):
        first, second = sorted(draw.sample(points, 2), key=points.index)
        harness.retry(first, second)
    print(f"\n{harness.cases} pairs, seed {SEED}")


# ---------------------------------------------------------------- the driver


@pytest.fixture(scope="module")
def driver_points(tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    return DriverKillPoints(folder=tmp_path_factory.mktemp("driver-points")).find_driver_points()


@pytest.mark.timeout(1500)
def test_the_drivers_calls_are_points(driver_points: list[Point]) -> None:
    print(f"\n{len(driver_points)} points in the driver")
    if ALL:
        print("\n".join(map(str, driver_points)))
    calls = {point.call for point in driver_points}
    for call in (
        *(f"store.get {name}" for name in ("job.json", "closing.json", "cancel.json", "lease.json")),
        *(f"store.create {name}" for name in ("started.json", "record.json")),
        *(f"store.put {name}" for name in ("status.json", "log/#.txt", "metrics/#.jsonl", "driver.log")),
    ):
        assert call in calls


@pytest.mark.timeout(7200 if ALL else 1500)
def test_the_driver_dies_anywhere(driver_points: list[Point], tmp_path: Path) -> None:
    """Every point in every mode, or a few drawn with a fixed seed: each case starts Dask once or twice. Some calls are
    made now and then, and a run on another machine, or at another time, may be over before: another case is drawn."""
    cases = [(point, mode) for point in driver_points for mode in DRIVER_MODES]
    harness = DriverKillPoints(folder=tmp_path)
    wanted = len(cases) * 3 // 4 if ALL else DRIVER_CASES
    for point, mode in cases if ALL else random.Random(SEED).sample(cases, 3 * DRIVER_CASES):
        harness.run_driver(point, mode)
        if not ALL and harness.cases - len(harness.missed) == wanted:
            break
    print(f"\nthe driver: {harness.cases} cases, {len(harness.missed)} points not come to")
    assert harness.cases - len(harness.missed) >= wanted, harness.missed


# ---------------------------------------------------------------- any backend, in a process of its own


@pytest.mark.timeout(7200 if ALL else 1500)
def test_a_death_at_any_call_to_google(kill_points: Callable[..., Told]) -> None:
    """The backend dataproc on the emulated API: every point in every mode, or a share of its remote calls."""
    told = kill_points("tests.killpoints.cloud:emulated", most=10_000 if ALL else CLOUD_CASES)
    if ALL:
        print("\n".join(told.points))
    wanted = ("create_cluster", "get_cluster", "list_clusters", "delete_cluster", "submit_job", "get_job", "cancel_job")
    assert all(f"google.{call}" in told.per_call for call in wanted)


def test_a_backend_needs_nothing_but_its_name(kill_points: Callable[..., Told]) -> None:
    told = kill_points("tests.killpoints.actors:DeletesSlowly", most=4)
    assert "backend.create" in told.per_call


# ---------------------------------------------------------------- the harness can fail


def forgets_to_look_after_create(step: str) -> None:
    """The bug: create does not look at closing.json, and so not after its call either."""
    if step == "create":
        Run._is_closing = lambda self: False  # type: ignore[method-assign]


def writes_the_receipt_before_the_last_listing(step: str) -> None:
    """The bug: delete believes that what it has asked for has happened."""
    if step == "delete":
        looks: list[int] = []
        end_own = Deletion._end_own

        def only_once(deletion: Deletion) -> tuple[dict[str, ClusterView], bool]:
            looks.append(1)
            if len(looks) == 1:
                return end_own(deletion)
            gone = ClusterView(name=deletion.plan.name, state=ClusterState.ABSENT)
            deletion.backend.describe = lambda name: gone  # type: ignore[method-assign]
            deletion.backend.find = lambda labels: []  # type: ignore[method-assign]
            return {}, False

        Deletion._end_own = only_once  # type: ignore[method-assign]


def starts_a_new_attempt_for_each_try(step: str) -> None:
    """The bug: a retry does not join the attempt that runs."""
    if step == "job":
        RunDir.last_attempt = lambda self, job: 0  # type: ignore[method-assign]


def test_a_missing_look_after_create_is_caught(points: list[Point], tmp_path: Path) -> None:
    harness = KillPoints(
        backend="tests.killpoints.actors:ForgetsNames", folder=tmp_path, sabotage=forgets_to_look_after_create
    )
    before_the_call = next(point for point in points if (point.call, point.when) == ("backend.create", "before"))
    with pytest.raises(Violation, match="clusters left beside a receipt"):
        harness.orphan(before_the_call, "receipt")


def test_a_receipt_before_the_last_listing_is_caught(points: list[Point], tmp_path: Path) -> None:
    harness = KillPoints(
        backend="tests.killpoints.actors:DeletesSlowly",
        folder=tmp_path,
        sabotage=writes_the_receipt_before_the_last_listing,
    )
    with pytest.raises(Violation, match="clusters left beside a receipt"):
        harness.teardown(_first(points, "job"))


def test_a_retry_that_does_not_join_is_caught(points: list[Point], tmp_path: Path) -> None:
    harness = KillPoints(
        backend="tests.killpoints.actors:StandInDriver",
        folder=tmp_path,
        sabotage=starts_a_new_attempt_for_each_try,
        patience=15.0,  # it is used up: nobody comes to an end
    )
    with pytest.raises(Violation):
        harness.retry(_first(points, "job"))


def _first(points: list[Point], step: str) -> Point:
    return next(point for point in points if point.step == step)
