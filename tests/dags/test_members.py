"""Whose states count, and when a cluster is wanted."""

from __future__ import annotations

from typing import Any

import pytest

from mayfly.airflow.members import DELETE, ENDED, Job, Members

ONE = Job(retries=0, timeout=None, may_skip=False)


def members(*, mapped: bool = False) -> Members:
    return Members(group_id="each.trips" if mapped else "trips", mapped=mapped, jobs={"a": ONE, "b": ONE})


class TaskInstance:
    """What Airflow gives a task, as far as states go: filters of the API, suffixes of mapped keys."""

    dag_id, run_id = "d", "r"

    def __init__(self, map_index: int, states: dict[tuple[str, int], str | None]) -> None:
        self.map_index, self._states = map_index, states

    def get_task_states(
        self, *, dag_id: str, run_ids: list[str], task_group_id: str, map_index: int | None
    ) -> dict[str, dict[str, Any]]:
        return {
            self.run_id: {
                task if index < 0 else f"{task}_{index}": state
                for (task, index), state in self._states.items()
                if task.startswith(f"{task_group_id}.") and map_index in (None, index)
            }
        }


def test_states_of_this_cluster_alone() -> None:
    states = {
        (f"each.trips.{name}", i): f"{name}{i}" for name in ("plan", "a", "own_task", "report") for i in range(12)
    }
    ti = TaskInstance(1, states)
    assert members(mapped=True).states({"ti": ti}) == {"plan": "plan1", "a": "a1", "report": "report1"}


def test_states_without_mapping() -> None:
    ti = TaskInstance(-1, {("trips.plan", -1): "success", ("trips.a", -1): None, ("neighbour.a", -1): "failed"})
    assert members().states({"ti": ti}) == {"plan": "success", "a": None}


def test_clusters_of_a_mapped_group() -> None:
    found = {f"each.trips.{name}_{i}": "success" for name in ("plan", "report", "plan_b") for i in (0, 7, 11)}
    assert members(mapped=True).clusters(found) == [0, 7, 11]
    assert members(mapped=True).states_of(7, found) == {"plan": "success", "report": "success"}
    assert members(mapped=True).clusters({"each.trips.plan": "upstream_failed"}) == [], "not expanded, so nothing ran"
    assert members().clusters({"trips.plan": "success"}) == [-1]


@pytest.mark.parametrize("state", sorted(ENDED))
def test_no_cluster_that_nobody_would_delete(state: str) -> None:
    why = members().why_not_create({DELETE: state, "a": None, "b": None})
    assert "trips.delete_cluster" in why and "clear the whole group 'trips'" in why


def test_no_cluster_that_nobody_would_use() -> None:
    assert "no job" in members().why_not_create({DELETE: None, "a": "success", "b": "failed"})


@pytest.mark.parametrize("state", [None, "scheduled", "queued", "running", "up_for_retry", "up_for_reschedule"])
def test_a_cluster_is_wanted(state: str | None) -> None:
    assert members().why_not_create({DELETE: None, "a": "success", "b": state}) == ""
    assert members().why_not_create({"a": state}) == ""


def test_mapped_advice_names_the_index() -> None:
    assert "same map index" in members(mapped=True).advice()
