"""Airflow's DAG objects as the plain data of `mayfly.daglint.facts`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from mayfly.airflow.operators import (
    ClusterOperator,
    CollectMetricsOperator,
    CreateClusterOperator,
    DeleteClusterOperator,
    PlanOperator,
    ReportOperator,
    RunJobOperator,
)
from mayfly.daglint.facts import Dag, Kind, Schedule, Task

_KINDS: dict[type, Kind] = {
    PlanOperator: "plan",
    CreateClusterOperator: "create",
    RunJobOperator: "job",
    CollectMetricsOperator: "collect",
    DeleteClusterOperator: "delete",
    ReportOperator: "report",
}
_BRANCHES = {"BaseBranchOperator", "BranchMixIn"}
"""By name: the provider that has them need not be installed, and moved them twice."""
_DEPTH = 20

Line = Callable[[str], int | None]
"""Where a task is made, by its id; of the DAG itself for ""."""


def describe(dag: DAG, *, line: Line) -> Dag:
    """What the rules need to know of `dag`."""
    return Dag(
        dag_id=dag.dag_id,
        tasks=tuple(_task(task, line=line(task.task_id)) for task in dag.tasks),
        schedule=_schedule(dag),
        dagrun_timeout=_seconds(dag.dagrun_timeout),
        default_execution_timeout=_seconds(dag.default_args.get("execution_timeout")),
        line=line(""),
    )


def _task(task: Any, *, line: int | None) -> Task:
    # A mapped operator is a promise of one: its class and its arguments are kept beside it.
    kind_of = getattr(task, "operator_class", None)
    kind_of = kind_of if isinstance(kind_of, type) else type(task)
    given: Mapping[str, Any] = getattr(task, "partial_kwargs", {})
    members = getattr(task, "members", None) or given.get("members")
    return Task(
        task_id=task.task_id,
        kind=_kind(kind_of),
        cluster=str(members.group_id) if issubclass(kind_of, ClusterOperator) and members else "",
        trigger_rule=str(getattr(task.trigger_rule, "value", task.trigger_rule)),
        is_setup=bool(task.is_setup),
        is_teardown=bool(task.is_teardown),
        fails_run=bool(task.is_teardown and task.on_failure_fail_dagrun),
        depends_on_past=bool(task.depends_on_past or task.wait_for_downstream),
        execution_timeout=_seconds(task.execution_timeout),
        templates=tuple(_texts([getattr(task, name, given.get(name)) for name in task.template_fields])),
        downstream=frozenset(task.downstream_task_ids),
        line=line,
    )


def _kind(kind_of: type) -> Kind:
    for ours, kind in _KINDS.items():
        if issubclass(kind_of, ours):
            return kind
    return "branch" if any(base.__name__ in _BRANCHES for base in kind_of.__mro__) else "other"


def _schedule(dag: DAG) -> Schedule:
    # By name: references have classes of their own, and a timetable of Airflow's core holds a SerializedAsset.
    for asset in _assets(dag.timetable):
        if "Null" in type(asset).__name__ or not any("Asset" in base.__name__ for base in type(asset).__mro__):
            continue
        both = "OrTime" in type(dag.timetable).__name__
        return "assets or time" if both else "assets"
    return "time" if getattr(dag.timetable, "can_be_scheduled", True) and dag.schedule is not None else "none"


def _assets(timetable: Any) -> Iterator[Any]:
    """The single assets of a condition such as (a & b) | c."""
    ahead = [getattr(timetable, "asset_condition", None)]
    while ahead:
        one = ahead.pop()
        if hasattr(one, "objects"):
            ahead += one.objects
        else:
            yield one


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < _DEPTH and isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()], depth + 1)
    elif depth < _DEPTH and isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from _texts(one, depth + 1)


def _seconds(given: Any) -> float | None:
    if isinstance(given, timedelta):
        return given.total_seconds()
    return float(given) if isinstance(given, (int, float)) else None
