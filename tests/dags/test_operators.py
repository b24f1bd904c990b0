"""The operators themselves, poked as Airflow pokes them: real steps, a real store, a stand-in for the driver alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from mayfly.airflow import deferring
from mayfly.airflow.compat import AirflowException, AirflowFailException, AirflowRescheduleException
from mayfly.airflow.taskgroup import dask_cluster
from mayfly.project.loading import Project
from mayfly.states import ClusterState
from mayfly.steps.lifecycle import Handle, Run
from tests.dags.bags import project

JOB = """
description: Says where its data is.
timeout: 2h
retries: 0
inputs: {trips: data/trips}
args: ["--from={{ inputs.trips }}"]
cluster: {workers: 1, worker: {cores: 1, memory: 512 MB}}
"""
TARGET = {
    "backend": "tests.killpoints.actors:StandInDriver",
    "launcher": "processes",
    "staging": "staging",
    "timing": {"stop_grace": "0.3s", "poll_inline": "0.02s"},
}


class TaskInstance:
    """What Airflow gives a task, as far as it is asked here."""

    dag_id, run_id, map_index, try_number, max_tries = "d", "r", -1, 1, 0

    def __init__(self, task_id: str, returned: Any) -> None:
        self.task_id, self._returned = task_id, returned

    def xcom_pull(self, *, task_ids: str, map_indexes: int) -> Any:
        return self._returned

    def get_task_states(self, **which: Any) -> dict[str, Any]:
        return {self.run_id: {}}


@dataclass
class Tasks:
    """One cluster's tasks, in the order of its group."""

    dag: DAG
    returned: Any = None
    ran: list[str] = field(default_factory=list)

    def context(self, name: str, *, inline: bool = True) -> dict[str, Any]:
        return {
            "ti": TaskInstance(f"trips.{name}", self.returned),
            "dag_run": SimpleNamespace(
                triggering_user_name="dag_test" if inline else None,
                logical_date=None,
                run_after=datetime(2026, 11, 21, tzinfo=UTC),
            ),
        }

    def task(self, name: str) -> Any:
        return self.dag.get_task(f"trips.{name}").prepare_for_execution()

    def do(self, name: str) -> Any:
        context, task = self.context(name), self.task(name)
        task.render_template_fields(context)
        result = task.execute(context)
        if name == "plan":
            self.returned = result
        self.ran.append(name)
        return result

    @property
    def run(self) -> Run:
        return Run.open(Handle.from_json(self.returned))

    @contextmanager
    def unreadable(self, name: str) -> Iterator[None]:
        """A file of the run directory of which the store gives no answer."""
        path = Path(self.run.dir.url.removeprefix("file://")) / name
        aside = path.with_name("aside")
        if path.exists():
            path.rename(aside)
        path.mkdir()
        try:
            yield
        finally:
            path.rmdir()
            if aside.exists():
                aside.rename(path)


@pytest.fixture
def tasks(tmp_path: Path, state_dir: Path) -> Iterator[Callable[..., Tasks]]:
    """Makes the tasks of a DAG whose cluster runs jobs with these arguments of `cluster.run`."""
    home = project(tmp_path / "p", trips=JOB)
    (home / "config" / "targets.yaml").write_text(json.dumps({"targets": {"local": TARGET}}))
    made: list[Tasks] = []

    def make(**jobs: dict[str, Any]) -> Tasks:
        with DAG("d", schedule=None) as dag, dask_cluster(Project(home).job("trips")) as cluster:
            for name, how in (jobs or {"run_job": {}}).items():
                cluster.run(task_id=name, **how)
        made.append(Tasks(dag))
        return made[-1]

    yield make
    for each in made:
        if "create_cluster" in each.ran:
            each.do("delete_cluster")


def test_no_answer_while_arguments_are_rendered_costs_no_try(tasks: Callable[..., Tasks]) -> None:
    these = tasks()
    these.do("plan")
    these.do("create_cluster")
    context, task = these.context("run_job", inline=False), these.task("run_job")
    with these.unreadable("plan.json"):
        task.render_template_fields(context)
        with pytest.raises(AirflowRescheduleException):
            task.execute(context)
    these.do("run_job")
    order = these.run.dir.attempt("run_job", 1).order()
    assert order is not None and order.args == (f"--from={these.run.plan.inputs['trips']}",)


def test_arguments_are_rendered_once_the_store_answers(tasks: Callable[..., Tasks]) -> None:
    these = tasks()
    these.do("plan")
    these.do("create_cluster")
    context, task = these.context("run_job"), these.task("run_job")
    with these.unreadable("plan.json"):
        task.render_template_fields(context)
    task.execute(context)
    order = these.run.dir.attempt("run_job", 1).order()
    assert order is not None and order.args == (f"--from={these.run.plan.inputs['trips']}",)


def test_a_store_that_stays_silent_costs_a_try_at_last(tasks: Callable[..., Tasks]) -> None:
    these = tasks()
    these.do("plan")
    context, task = these.context("run_job", inline=False), these.task("run_job")
    with these.unreadable("plan.json"):
        task.render_template_fields(context)
        with pytest.raises(AirflowException) as caught:
            task.execute({**context, "task_reschedule_count": 10_000})
    assert type(caught.value) is AirflowException


@pytest.mark.parametrize("wrong", ["{{ inputs.trps }}", "{{ nobody }}"])
def test_a_wrong_name_ends_the_task_at_once(tasks: Callable[..., Tasks], wrong: str) -> None:
    these = tasks(run_job={"args": [wrong]})
    these.do("plan")
    with pytest.raises(AirflowFailException):
        these.do("run_job")


def test_no_answer_before_deferring_costs_no_try(
    tasks: Callable[..., Tasks], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The poke had its answer, and the store falls silent right after it."""
    monkeypatch.setattr(deferring, "is_installed", lambda: True)
    these = tasks()
    these.do("plan")
    these.do("create_cluster")
    context, task = these.context("run_job", inline=False), these.task("run_job")
    task.render_template_fields(context)
    step = Run.job
    with ExitStack() as silence:

        def and_then_silence(run: Run, *args: Any, **about: Any) -> Any:
            poll = step(run, *args, **about)
            silence.enter_context(these.unreadable("jobs/run_job/1/record.json"))
            return poll

        monkeypatch.setattr(Run, "job", and_then_silence)
        with pytest.raises(AirflowRescheduleException):
            task.execute(context)
    assert "record.json" in caplog.text


def test_a_jobs_own_timeout_is_nobody_elses(tasks: Callable[..., Tasks]) -> None:
    these = tasks(short={}, long={"timeout": 5 * 3600.0})
    these.do("plan")
    these.do("create_cluster")
    for name in ("short", "long"):
        these.do(name)
    orders = [these.run.dir.attempt(name, 1).order() for name in ("short", "long")]
    assert [order.limits.job for order in orders if order] == [2 * 3600.0, 5 * 3600.0]
    assert these.run.plan.limits.job == 5 * 3600.0, "the cluster lives as long as its longest job may"


def test_a_store_that_is_silent_keeps_no_cluster_from_being_deleted(tasks: Callable[..., Tasks]) -> None:
    these = tasks()
    these.do("plan")
    these.do("create_cluster")
    run = these.run
    assert run.backend.describe(run.plan.name).state is ClusterState.RUNNING
    with these.unreadable("plan.json"), pytest.raises(AirflowRescheduleException):
        these.task("delete_cluster").execute(these.context("delete_cluster", inline=False))
    assert run.backend.describe(run.plan.name).state is ClusterState.ABSENT
    these.do("delete_cluster")
    assert run.dir.receipt() is not None
