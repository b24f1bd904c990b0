"""`dask_cluster`: one cluster and its jobs as a task group, wired so that no cluster outlives its run.

    with dask_cluster("trips") as cluster:
        cluster.run("clean.py") >> cluster.run("train.py", args=["{{ run_date }}"])

    plan -> create_cluster -> clean -> train -> collect_metrics -> delete_cluster -> report

plan and create are setups; collect, delete and report are teardowns of both, so that they run when anything between
failed, was skipped or was killed, and also when create itself did: a half-made cluster must be deleted. Only report may
fail the DAG run, and it does unless the deletion is proven. Whoever comes after the group waits for its jobs, not for
the deletion; `cluster.deleted` is there to wait for.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TaskGroup, TriggerRule
from airflow.sdk.definitions._internal.contextmanager import TaskGroupContext
from airflow.sdk.definitions._internal.mixins import DependencyMixin
from airflow.sdk.definitions.taskgroup import MappedTaskGroup

from mayfly.airflow import members as names
from mayfly.airflow.members import Job, Members
from mayfly.airflow.notify import add_callback
from mayfly.airflow.operators import (
    HIGHEST_PRIORITY,
    SPARE_TRIES,
    CollectMetricsOperator,
    CreateClusterOperator,
    DeleteClusterOperator,
    PlanOperator,
    ReportOperator,
    RunJobOperator,
    pins,
)
from mayfly.errors import InputError

if TYPE_CHECKING:
    from mayfly.project.loading import Project
    from mayfly.spec.job import JobSpec


def dask_cluster(
    job: str | JobSpec,
    *,
    target: str | None = None,
    group_id: str | None = None,
    max_age: float | None = None,
    pool: str | None = None,
    queue: str | None = None,
    retry_delay: float = 10.0,
) -> DaskCluster:
    """A cluster as `job` describes it (a name below jobs/, or a JobSpec), for use in a `with` statement in a DAG.

    Map it over several clusters by a `@task_group` that holds one `dask_cluster` and is expanded: that group is then
    the cluster's own, and takes no `group_id`.

    `target` may be a template or the result of another task; by default it is the job's. `group_id` is the job's name
    by default. `max_age` (seconds) is when the cluster ends by itself whatever happens; by default it follows from the
    limits of its jobs. `pool` and `queue` are for all tasks of the group: those of `default_args` do not count here,
    nor do other arguments that could leak a cluster. `retry_delay` in seconds.
    """
    if isinstance(job, str):
        job = _project(Path(sys._getframe(1).f_code.co_filename).parent).job(job)
    return DaskCluster(
        job,
        target=job.target if target is None else target,
        group=_group(job, group_id),
        max_age=max_age,
        settings={"pool": pool, "queue": queue, "delay": retry_delay},
    )


class DaskCluster(DependencyMixin):
    """What `dask_cluster` returns. Stands for the group in `a >> cluster >> b`."""

    def __init__(
        self, job: JobSpec, *, target: Any, group: TaskGroup, max_age: float | None, settings: Mapping[str, Any]
    ) -> None:
        self.job = job
        self._settings = settings
        self.group = group
        self._mapped = isinstance(group, MappedTaskGroup)
        self._members = Members(group_id=str(group.group_id), mapped=self._mapped)
        self._common: dict[str, Any] = {
            "job": job,
            "target": target,
            "members": self._members,
            "task_group": self.group,
        }
        self._jobs: list[RunJobOperator] = []
        self._deleted: DeleteClusterOperator | None = None
        self._plan = PlanOperator(
            task_id=names.PLAN, max_age=max_age, do_xcom_push=True, **self._common, **self._pins(retries=2)
        )
        self._create = CreateClusterOperator(
            task_id=names.CREATE, do_xcom_push=False, **self._common, **self._pins(retries=2)
        )

    def _pins(self, *, retries: int) -> dict[str, Any]:
        return pins(retries=retries, **self._settings)

    # -- what users call

    def run(
        self,
        script: str | None = None,
        *,
        task_id: str | None = None,
        args: Any = None,
        timeout: float | None = None,
        retries: int | None = None,
        may_skip: bool = False,
        inlets: Sequence[Any] = (),
        outlets: Sequence[Any] = (),
    ) -> RunJobOperator:
        """Run a script of the job's folder on the cluster; one after another, in the order of these calls.

        By default the job's own script, with the job's own args, timeout and retries. `args` may hold templates and
        results of other tasks. `timeout` in seconds. A skipped job turns the run red unless it `may_skip`.
        """
        if self._deleted is not None:
            raise InputError(f"{self._members.group_id}: cluster.run() after the end of its `with` block")
        own = script is None or script == self.job.script
        name = task_id or (names.JOB if script is None else _task_id(script))
        if name in names.OURS or name in self._members.jobs:
            raise InputError(
                f"{self._members.group_id}: a task named {name!r} is there already; give this job another task_id"
            )
        tries = self.job.retries if retries is None else retries
        self._members.jobs[name] = Job(retries=tries, timeout=timeout, may_skip=may_skip)
        task = RunJobOperator(
            task_id=name,
            name=name,
            script=script or self.job.script,
            args=(list(self.job.args) if own else []) if args is None else args,
            timeout=timeout,
            attempts=1 + tries,
            do_xcom_push=False,
            inlets=list(inlets),
            outlets=list(outlets),
            **self._common,
            **self._pins(retries=tries + SPARE_TRIES),
        )
        self._jobs.append(task)
        return task

    @property
    def deleted(self) -> DeleteClusterOperator:
        """The task that deletes, for whoever must wait for it. Known after the `with` block."""
        if self._deleted is None:
            raise InputError(f"{self._members.group_id}: cluster.deleted is known after the end of the `with` block")
        return self._deleted

    # -- the group

    def __enter__(self) -> DaskCluster:
        if not self._mapped:  # else we are in it already, and so is whatever its author adds
            self.group.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._wire()
        finally:
            if not self._mapped:
                self.group.__exit__(kind, error, trace)

    def _wire(self) -> None:
        if not self._jobs:
            raise InputError(
                f"{self._members.group_id}: no job runs on this cluster; call cluster.run() in the `with` block"
            )
        if self.group.dag.dagrun_timeout is not None:
            raise InputError(
                f"DAG {self.group.dag.dag_id}: dagrun_timeout ends a run without its teardowns, so the cluster of "
                f"{self._members.group_id} would not be deleted; remove it, and set the job's timeout instead"
            )
        collect = CollectMetricsOperator(
            task_id=names.COLLECT, do_xcom_push=False, **self._common, **self._pins(retries=0)
        )
        delete = DeleteClusterOperator(
            task_id=names.DELETE,
            do_xcom_push=False,
            priority_weight=HIGHEST_PRIORITY,
            **self._common,
            **self._pins(retries=5),
        )
        report = ReportOperator(task_id=names.REPORT, do_xcom_push=False, **self._common, **self._pins(retries=2))
        self._plan.as_setup()
        self._create.as_setup()
        self._plan >> self._create
        for earlier, later in _serial(self._jobs):
            earlier >> later
            if self._members.jobs[earlier.name].may_skip:
                # Only our own edge leads there; it gives an order and must not pass a skip on.
                later.trigger_rule = TriggerRule.NONE_FAILED
        inside = [task for task in self.group.iter_tasks() if task not in (self._plan, collect, delete, report)]
        for task in inside:
            # Create has one direct successor for each job without another job before it; Airflow wants the task
            # directly after a setup to run only when the setup succeeded, and jobs do.
            if task in self._jobs and not _has_upstream(task, self._jobs):
                self._create >> task
        for task in inside:
            if task is not self._create and not any(other.task_id in task.downstream_task_ids for other in inside):
                task >> collect
        setups = [self._plan, self._create]
        collect.as_teardown(setups=setups)
        delete.as_teardown(setups=setups)
        report.as_teardown(setups=setups, on_failure_fail_dagrun=True)
        collect >> delete >> report
        self._deleted = delete
        add_callback(self.group.dag, self.job, self._members)

    # -- as a part of the DAG

    @property
    def roots(self) -> Sequence[Any]:
        return [self._plan] if self._mapped else self.group.roots

    @property
    def leaves(self) -> Sequence[Any]:
        if not self._mapped:
            return self.group.leaves
        return [job for job in self._jobs if not any(other.task_id in job.downstream_task_ids for other in self._jobs)]

    def set_upstream(self, other: Any, edge_modifier: Any = None) -> None:
        for part in self.roots if self._mapped else [self.group]:
            part.set_upstream(other, edge_modifier)

    def set_downstream(self, other: Any, edge_modifier: Any = None) -> None:
        for part in self.leaves if self._mapped else [self.group]:
            part.set_downstream(other, edge_modifier)

    def update_relative(self, other: Any, upstream: bool = True, edge_modifier: Any = None) -> None:
        if not self._mapped:
            self.group.update_relative(other, upstream, edge_modifier)


def _group(job: JobSpec, group_id: str | None) -> TaskGroup:
    """A group of its own; inside a mapped group that one itself.

    A group *within* a mapped one is refused: after a clear Airflow's api-server answers 500 to every task of such a DAG
    ("weakly-referenced object no longer exists", seen on 3.1.8, and half of it on 3.3.2), also to those that delete.
    """
    around = TaskGroupContext.get_current()
    if around is None or next(around.iter_mapped_task_groups(), None) is None:
        return TaskGroup(group_id=group_id or job.name, tooltip=job.description)
    if (
        group_id is not None
        or not isinstance(around, MappedTaskGroup)
        or around.child_id(names.PLAN) in around.children
    ):
        raise InputError(
            f"group {around.group_id!r}: a mapped group holds one dask_cluster, directly and without group_id; for "
            "another one expand another @task_group"
        )
    return around


def _project(folder: Path) -> Project:
    """The project around the DAG file that asks, else the one that this process is in."""
    from mayfly.project.loading import Project

    try:
        return Project.find(folder)
    except InputError:
        return Project.find()


def _task_id(script: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(PurePosixPath(script).with_suffix("")))


def _has_upstream(task: BaseOperator, others: Sequence[BaseOperator]) -> bool:
    ids = {other.task_id for other in others}
    return any(found.task_id in ids for found in task.get_flat_relatives(upstream=True))


def _serial(jobs: Sequence[BaseOperator]) -> list[tuple[BaseOperator, BaseOperator]]:
    """Edges that put all jobs of a cluster in one row: two at once would fight for the same workers.

    The row keeps the order of definition wherever the user's own edges leave a choice, and so never closes a cycle.
    """
    before = {job.task_id: {found.task_id for found in job.get_flat_relatives(upstream=True)} for job in jobs}
    left, row = list(jobs), []
    while left:
        ids = {job.task_id for job in left}
        ready = next((job for job in left if not before[job.task_id] & ids), None)
        if ready is None:
            raise InputError(f"the jobs {', '.join(sorted(ids))} wait for each other in a circle")
        row.append(ready)
        left.remove(ready)
    return [(a, b) for a, b in pairwise(row) if a.task_id not in before[b.task_id]]
