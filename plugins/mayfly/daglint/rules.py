"""What the DAG lint refuses, as pure functions over `mayfly.daglint.facts`.

`dask_cluster` wires a cluster so that it cannot outlive its run. A DAG file can undo that, mostly with Airflow's own
everyday means, and mostly in green. Each rule names one way; docs/dags.md says why in full.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mayfly.daglint.facts import TEARDOWN_RULE, Dag, Kind, Task
from mayfly.project.checks import Severity, template_names
from mayfly.units import format_duration

_TASK_IDS: dict[Kind, str] = {
    "plan": "plan",
    "create": "create_cluster",
    "collect": "collect_metrics",
    "delete": "delete_cluster",
    "report": "report",
}
_SETUPS: tuple[Kind, ...] = ("plan", "create")
_TEARDOWNS: tuple[Kind, ...] = ("collect", "delete", "report")
_BY_HAND = "let `with dask_cluster(...)` make and wire all of a cluster's tasks"
_UNDATED = (
    *("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz", "logical_date", "task_instance_key_str"),
    *("data_interval_start", "data_interval_end"),
    *("prev_data_interval_start_success", "prev_data_interval_end_success"),
)
"""What Airflow leaves out of the context of a run without a logical date."""


Said = tuple[Severity, Task | str | None, str]
"""Severity; the task it is about, or else the keyword in the file, or None; message."""


def _error(about: Task | str | None, message: str) -> Said:
    return "error", about, message


def _warning(about: Task | str | None, message: str) -> Said:
    return "warning", about, message


def dagrun_timeout(dag: Dag) -> Iterator[Said]:
    """Measured: when it passes, the run is failed and no teardown runs."""
    if dag.dagrun_timeout is not None:
        yield _error(
            "dagrun_timeout",
            f"dagrun_timeout ({format_duration(dag.dagrun_timeout)}) around the cluster {_names(dag)}: when it passes, "
            "Airflow ends the run without its teardowns, and the cluster lives on; remove it, and limit the job with "
            "`timeout` in job.yaml or cluster.run(timeout=seconds)",
        )


def complete(dag: Dag) -> Iterator[Said]:
    """Each cluster has its five tasks once, setups and teardowns are what they should be."""
    for name, tasks in dag.clusters.items():
        for kind, task_id in _TASK_IDS.items():
            count = sum(task.kind == kind for task in tasks)
            if count != 1:
                yield _error(
                    tasks[0],
                    f"the cluster {name!r} has {count or 'no'} tasks of the kind {task_id}, exactly one is needed"
                    f"{_WITHOUT.get(kind, '') if not count else ''}; {_BY_HAND}",
                )
        for task in tasks:
            if task.kind in _SETUPS and not task.is_setup:
                yield _error(task, f"must be a setup and is none; {_BY_HAND}")
            if task.kind in _TEARDOWNS and not task.is_teardown:
                yield _error(
                    task,
                    f"must be a teardown and is none: it would be skipped when a job fails or the run is marked; "
                    f"{_BY_HAND}",
                )
            elif task.kind in _TEARDOWNS and task.trigger_rule != TEARDOWN_RULE:
                yield _error(
                    task,
                    f"its trigger rule is {task.trigger_rule}, and {TEARDOWN_RULE} alone is right for a teardown; "
                    "leave it as dask_cluster() made it",
                )
            if task.kind in _TEARDOWNS and task.depends_on_past:
                yield _error(
                    task,
                    "depends_on_past or wait_for_downstream is set, so that a failed run keeps the next run's cluster "
                    "alive; leave it as dask_cluster() made it",
                )


_WITHOUT: dict[Kind, str] = {
    "delete": ": nothing would delete it",
    "report": ": nobody would notice when it is not deleted",
}


def wired(dag: Dag) -> Iterator[Said]:
    """plan >> create >> jobs >> delete >> report, and every teardown is one of both setups."""
    for tasks in dag.clusters.values():
        ours = {kind: next((task for task in tasks if task.kind == kind), None) for kind in _TASK_IDS}
        plan, create, delete, report = ours["plan"], ours["create"], ours["delete"], ours["report"]
        for kind in _TEARDOWNS:
            teardown = ours[kind]
            for setup in (plan, create):
                if teardown and setup and teardown.task_id not in setup.downstream:
                    why = (
                        "when create fails half-way, nothing is deleted"
                        if setup is plan
                        else "a clear would not repeat them together"
                    )
                    yield _error(
                        teardown,
                        f"is no teardown of {setup.task_id}: {why}; {_BY_HAND}",
                    )
        jobs = [task for task in tasks if task.kind == "job"]
        orders = [(plan, create), *((create, job) for job in jobs), *((job, delete) for job in jobs), (delete, report)]
        for first, last in orders:
            if first and last and not dag.leads_to(first, last):
                yield _error(last, f"does not wait for {first.task_id}; {_BY_HAND}")


def verdict(dag: Dag) -> Iterator[Said]:
    """Only report turns a run red that is not proven well; nothing may take that from it."""
    for tasks in dag.clusters.values():
        for task in tasks:
            if task.kind == "report" and task.is_teardown and not task.fails_run:
                yield _error(
                    task,
                    "on_failure_fail_dagrun is off: a run whose cluster is not deleted would end green; leave it as "
                    "dask_cluster() made it",
                )
            if task.kind == "report":
                for later in dag.after(task):
                    if not later.is_teardown or later.fails_run:
                        yield _error(
                            later,
                            f"comes after {task.task_id}, which must be the last: Airflow asks only the last tasks "
                            "whether the run is well, and this one can hide a cluster that is not deleted; let it "
                            "come after cluster.deleted, or after the cluster",
                        )
    for task in dag.tasks:
        if task.kind == "branch":
            for later in dag.after(task):
                if later.kind in ("delete", "report"):
                    yield _error(
                        task,
                        f"is a branch, and would skip {later.task_id} when it chooses another way; let it decide "
                        "about jobs (may_skip=True) or about the whole cluster",
                    )


def after_setup(dag: Dag) -> Iterator[Said]:
    """Airflow refuses the whole file, with a message that names no task."""
    for tasks in dag.clusters.values():
        for setup in tasks:
            if setup.is_setup:
                for task in dag.after(setup):
                    if not task.is_teardown and task.trigger_rule != "all_success":
                        yield _error(
                            task,
                            f"its trigger rule is {task.trigger_rule}, and it comes directly after {setup.task_id}, "
                            "where Airflow allows all_success alone; let it come after a job or after the cluster",
                        )


def execution_timeout(dag: Dag) -> Iterator[Said]:
    """Waiting tasks reschedule themselves; that time does not count on Airflow 3."""
    limit = "limit the job with `timeout` in job.yaml or cluster.run(timeout=seconds)"
    for task in dag.tasks:
        if task.cluster and task.execution_timeout is not None:
            yield _warning(
                task,
                f"execution_timeout ({format_duration(task.execution_timeout)}) does not limit it, since the time for "
                f"which a task waits does not count; {limit}",
            )
    if dag.default_execution_timeout is not None and all(task.cluster for task in dag.tasks):
        yield _warning(
            "execution_timeout",
            f"execution_timeout ({format_duration(dag.default_execution_timeout)}) in default_args does not reach the "
            f"cluster's tasks, and this DAG has no others; {limit}",
        )


def undated(dag: Dag) -> Iterator[Said]:
    """A run that an asset started has no logical date, and so none of the names that follow from it."""
    if not dag.schedule.startswith("assets"):
        return
    for task in dag.tasks:
        names = sorted({name for text in task.templates for name in _names_in(text)})
        if names:
            what = "run_date" if task.kind == "job" else "dag_run.run_after"
            yield _warning(
                task,
                f"its templates use {', '.join(names)}, which a run started by an asset does not have; use {what}",
            )


def _names_in(text: str) -> set[str]:
    if not re.search(r"\{[{%]", text):
        return set()
    from jinja2 import Environment, TemplateError, nodes

    try:
        tree = Environment(extensions=["jinja2.ext.do"]).parse(text)
    except TemplateError:
        return set()  # a task says so when it renders, `mayfly validate` before
    read = template_names(tree)
    of_run = [node for node in tree.find_all(nodes.Getattr) if node.attr in _UNDATED]
    return (read & set(_UNDATED)) | {
        f"dag_run.{node.attr}" for node in of_run if isinstance(node.node, nodes.Name) and node.node.name == "dag_run"
    }


def _names(dag: Dag) -> str:
    return ", ".join(map(repr, dag.clusters))


RULES: tuple[Callable[[Dag], Iterator[Said]], ...] = (
    dagrun_timeout,
    complete,
    wired,
    verdict,
    after_setup,
    execution_timeout,
    undated,
)
