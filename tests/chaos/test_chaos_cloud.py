"""Whatever the cloud does: no cluster is left once its maximum age has passed, never two of one run, no receipt that is
not true, no wrong verdict.

`make test` runs a few schedules, `make chaos-cloud` 500 (`TEST_CHAOS=500`; `TEST_CHAOS_FROM=123` begins at a seed).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mayfly.backends.base import ClusterView
from mayfly.contract import Plan
from mayfly.states import ClusterState
from tests.chaos.cloud import StandInDriver, dump, run_all
from tests.chaos.schedules import Event, Schedule, draw
from tests.emulators.dataproc.client import Emulator

COUNT = int(os.environ.get("TEST_CHAOS", "40"))
FIRST = int(os.environ.get("TEST_CHAOS_FROM", "0"))


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(tmp_path / "emulator", env={"STORAGE_EMULATOR_HOST": ""}) as emulator:
        monkeypatch.setenv("DATAPROC_EMULATOR_HOST", emulator.host)
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        yield emulator


@pytest.mark.timeout(3600)
def test_random_schedules(emulator: Emulator, tmp_path: Path) -> None:
    schedules = [draw(seed) for seed in range(FIRST, FIRST + COUNT)]
    findings = run_all(schedules, emulator=emulator, folder=tmp_path / "runs")
    calls = sum(number for codes in emulator.calls().values() for number in codes.values())
    fired = sum(emulator.fired().values())
    print(f"\n{len(findings)} schedules from seed {FIRST}: {fired} faults in {calls} calls; verdicts: {dump(findings)}")
    nets = [each["name"] for each in emulator.history() if each["how_gone"] != "delete"]
    left = f"{len(nets)} were left to their maximum age; policies left: {len(emulator.policies())}"
    print(f"{len(emulator.history())} clusters; {left}")
    wrong = [f"{finding.schedule} {finding.words}: {why}" for finding in findings for why in finding.wrongs]
    assert not wrong, "\n".join(wrong)
    assert emulator.clusters() == []
    assert any("success" in finding.words for finding in findings)


# ---------------------------------------------------------------- the audit can fail


class BelievesThatItIsGone(StandInDriver):
    """The bug: what was asked to go is gone."""

    def delete(self, name: str, *, owner: str) -> ClusterView:
        super().delete(name, owner=owner)
        self.describe = self._absent  # type: ignore[method-assign]
        return ClusterView(name=name, state=ClusterState.ABSENT)

    def find(self, labels: Mapping[str, str]) -> list[ClusterView]:
        return []


def test_a_lie_is_caught(emulator: Emulator, tmp_path: Path) -> None:
    schedule = Schedule(seed=1, rules=({"on": "shutdown", "do": "stuck"},), job_seconds=0.05)
    backend = f"{__name__}:{BelievesThatItIsGone.__name__}"
    (finding,) = run_all([schedule], emulator=emulator, folder=tmp_path / "runs", backend=backend)
    assert any("is not true" in wrong for wrong in finding.wrongs), finding


class LeavesItsPolicy(StandInDriver):
    """The bug: what is shared is nobody's."""

    def tidy(self, plan: Plan) -> None:
        pass


def test_a_policy_that_is_left_is_caught(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.chaos.cloud.SLOW", 3600.0)  # no fault of the machine, however slow it is
    backend = f"{__name__}:{LeavesItsPolicy.__name__}"
    schedule = Schedule(seed=3, job_seconds=0.05, grows=True)
    (finding,) = run_all([schedule], emulator=emulator, folder=tmp_path / "runs", backend=backend, speed=1.0)
    (policy,) = emulator.policies()
    assert any(policy in wrong for wrong in finding.wrongs), finding


def test_a_task_that_is_killed_joins_the_attempt_that_runs(emulator: Emulator, tmp_path: Path) -> None:
    schedule = Schedule(seed=2, events=(Event(step="job", poke=2, what="killed"),), job_seconds=0.3)
    (finding,) = run_all([schedule], emulator=emulator, folder=tmp_path / "runs", speed=1.0)
    assert finding.words == ("success",) and finding.wrongs == ()
    assert len((tmp_path / "runs" / "staging" / "ran.txt").read_text().splitlines()) == 1
