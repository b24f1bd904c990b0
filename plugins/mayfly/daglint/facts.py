"""What a DAG file is and does, as data: `mayfly.airflow.lint` writes it down, `mayfly.daglint.rules` judges it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Kind = Literal["plan", "create", "job", "collect", "delete", "report", "branch", "other"]
"""The first six are Mayfly's operators; a branch chooses among the tasks directly after it, and skips the others."""

Schedule = Literal["none", "time", "assets", "assets or time"]

TEARDOWN_RULE = "all_done_setup_success"
"""Airflow's trigger rule of teardowns: all before it have ended, and at least one of its setups succeeded."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a DAG. `line` (1-based) is where the DAG file makes it, None when that is not known."""

    task_id: str
    kind: Kind = "other"
    cluster: str = ""
    """The group id of the cluster it belongs to, for Mayfly's own."""
    trigger_rule: str = "all_success"
    is_setup: bool = False
    is_teardown: bool = False
    fails_run: bool = False
    """A teardown with on_failure_fail_dagrun."""
    depends_on_past: bool = False
    execution_timeout: float | None = None
    """Seconds."""
    templates: tuple[str, ...] = ()
    """All text in its template fields."""
    downstream: frozenset[str] = frozenset()
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class Dag:
    """One DAG; `tasks` in the order of their definition."""

    dag_id: str
    tasks: tuple[Task, ...] = ()
    schedule: Schedule = "none"
    dagrun_timeout: float | None = None
    """Seconds."""
    default_execution_timeout: float | None = None
    """`execution_timeout` of default_args, in seconds."""
    line: int | None = None

    @cached_property
    def by_id(self) -> Mapping[str, Task]:
        return {task.task_id: task for task in self.tasks}

    @cached_property
    def clusters(self) -> Mapping[str, tuple[Task, ...]]:
        """Mayfly's own tasks by cluster."""
        names = dict.fromkeys(task.cluster for task in self.tasks if task.cluster)
        return {name: tuple(task for task in self.tasks if task.cluster == name) for name in names}

    def after(self, task: Task) -> Iterable[Task]:
        """The tasks directly after `task`."""
        return [self.by_id[name] for name in sorted(task.downstream) if name in self.by_id]

    def leads_to(self, first: Task, last: Task) -> bool:
        """Whether `last` comes after `first`, directly or not."""
        seen: set[str] = set()
        ahead = [first]
        while ahead:
            for task in self.after(ahead.pop()):
                if task.task_id == last.task_id:
                    return True
                if task.task_id not in seen:
                    seen.add(task.task_id)
                    ahead.append(task)
        return False


@dataclass(frozen=True, kw_only=True)
class Deed:
    """Something a DAG file does while it is read that it should not do, for example `what`="starts git".

    `where` names the user's other file that does it, when it is not the DAG file itself.
    """

    what: str
    line: int | None = None
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class DagFile:
    """One file of the DAG folder, after it was read."""

    file: str
    dags: tuple[Dag, ...] = ()
    error: str = ""
    """Airflow's import error, with its traceback; empty when the file could be read."""
    error_line: int | None = None
    imports: tuple[Deed, ...] = ()
    """Heavy packages it loads; `what` is the package."""
    work: tuple[Deed, ...] = ()
    cpu_s: float = 0.0
    """CPU time of one reading, in seconds, without that of Airflow's own import."""
    uses_mayfly: bool = True
    """Names Mayfly in its text: other files are judged mildly."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Where some keywords and attributes (`dagrun_timeout`, `execution_timeout`, ...) stand first."""
