"""Who belongs to one cluster's task group, and how their states are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PLAN, CREATE, JOB, COLLECT, DELETE, REPORT = (
    "plan",
    "create_cluster",
    "run_job",
    "collect_metrics",
    "delete_cluster",
    "report",
)
OURS = (PLAN, CREATE, COLLECT, DELETE, REPORT)
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States in which a task will not run again by itself."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the group's other tasks need to know of one job. `timeout` in seconds, None = the spec's."""

    retries: int
    timeout: float | None
    may_skip: bool


@dataclass
class Members:
    """One group's tasks, by their names within the group. Filled while the DAG file is read, constant after."""

    group_id: str
    mapped: bool
    """The group is mapped over several clusters: a task's map index is the cluster's, not the job's."""
    jobs: dict[str, Job] = field(default_factory=dict)
    """By name, in the order of their definition."""

    def task_id(self, name: str) -> str:
        return f"{self.group_id}.{name}"

    def map_index(self, context: Mapping[str, Any]) -> int:
        """Of the cluster; -1 when there is one."""
        return int(context["ti"].map_index) if self.mapped else -1

    def states(self, context: Mapping[str, Any]) -> dict[str, str | None]:
        """States of our tasks by name, from *this* cluster alone.

        Both filters are needed: without them a neighbour's failure would turn a healthy group red.
        """
        ti = context["ti"]
        index = self.map_index(context)
        found = ti.get_task_states(
            dag_id=ti.dag_id,
            run_ids=[ti.run_id],
            task_group_id=self.group_id,
            map_index=index if self.mapped else None,
        ).get(ti.run_id, {})
        return self.states_of(index, found)

    def states_of(self, index: int, found: Mapping[str, Any]) -> dict[str, str | None]:
        """The same, out of all that Airflow says of the group: it puts the index behind a mapped task's id."""
        suffix = f"_{index}" if self.mapped else ""
        keys = {name: f"{self.task_id(name)}{suffix}" for name in (*OURS, *self.jobs)}
        return {name: _text(found[key]) for name, key in keys.items() if key in found}

    def clusters(self, found: Mapping[str, Any]) -> list[int]:
        """Map indexes of the group's clusters, out of the same; none while the group is not expanded."""
        if not self.mapped:
            return [-1]
        tails = (key.removeprefix(f"{self.task_id(PLAN)}_") for key in found)
        return sorted(int(tail) for tail in tails if tail.isdecimal())

    def why_not_create(self, states: Mapping[str, str | None]) -> str:
        """Empty when a cluster is wanted; else why none may be made, and what to clear.

        Which tasks a clear includes is Airflow's choice and differs by version and mapping; a create that is run again
        without its delete would leak.
        """
        if states.get(DELETE) in ENDED:
            return f"{self.task_id(DELETE)} has ended already and would not run again. {self.advice()}"
        if all(states.get(job) in ENDED for job in self.jobs):
            return f"no job of this cluster is still to run. {self.advice()}"
        return ""

    def advice(self) -> str:
        what = "the same map index of " if self.mapped else ""
        return f"To run again on a new cluster, clear {what}the whole group {self.group_id!r} ({PLAN} to {REPORT})"


def _text(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))
