"""The rules of the DAG lint, with plain data: no Airflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.daglint.facts import TEARDOWN_RULE, Dag, DagFile, Deed, Task
from mayfly.daglint.files import MAX_CPU_S, findings

TEARDOWN = {"is_teardown": True, "trigger_rule": TEARDOWN_RULE}


def cluster(name: str = "c", *, after: frozenset[str] = frozenset()) -> list[Task]:
    """As dask_cluster() makes it, with one job."""

    def task(task_id: str, kind: str, *downstream: str, **more: object) -> Task:
        return Task(
            task_id=f"{name}.{task_id}", kind=kind, cluster=name, line=7,
            downstream=frozenset(f"{name}.{one}" for one in downstream), **more,
        )  # type: ignore[arg-type]  # fmt: skip

    ends = ("collect", "delete", "report")
    job = task("job", "job", "collect")
    return [
        task("plan", "plan", "create", *ends, is_setup=True),
        task("create", "create", "job", *ends, is_setup=True),
        replace(job, downstream=job.downstream | after),
        task("collect", "collect", "delete", **TEARDOWN),
        task("delete", "delete", "report", **TEARDOWN),
        task("report", "report", fails_run=True, **TEARDOWN),
    ]


def said(*tasks: Task, **dag: object) -> list[str]:
    file = DagFile(file="dags/x.py", dags=(Dag(dag_id="d", tasks=tasks, line=3, **dag),))  # type: ignore[arg-type]
    return [str(finding) for finding in findings(file)]


def change(kind: str, **changes: object) -> list[Task]:
    return [replace(task, **changes) if task.kind == kind else task for task in cluster()]  # type: ignore[arg-type]


def test_a_cluster_as_it_is_made_is_right() -> None:
    assert said(*cluster()) == []


def test_so_are_two_with_tasks_before_between_and_after() -> None:
    first, second = cluster("a", after=frozenset({"between"})), cluster("b", after=frozenset({"last"}))
    before = Task(task_id="before", kind="branch", downstream=frozenset({"a.plan", "last"}))
    between = Task(task_id="between", downstream=frozenset({"b.plan"}))
    deleted = replace(first[4], downstream=first[4].downstream | {"last"})
    last = Task(task_id="last", trigger_rule="all_done", execution_timeout=60)
    tasks = [before, *first[:4], deleted, first[5], between, *second, last]
    assert said(*tasks, default_execution_timeout=60.0, schedule="time") == []


def test_rules_are_for_dags_with_a_cluster_alone() -> None:
    task = Task(task_id="x", is_setup=True, downstream=frozenset({"y"}), templates=("{{ ds }}",), execution_timeout=1)
    other = Task(task_id="y", trigger_rule="all_done")
    assert said(task, other, dagrun_timeout=60.0, schedule="assets") == []


@pytest.mark.parametrize("kind", ["plan", "create", "collect", "delete", "report"])
def test_each_task_is_needed(kind: str) -> None:
    lines = said(*[task for task in cluster() if task.kind != kind])
    assert any("the cluster 'c' has no tasks of the kind" in line and ": error: " in line for line in lines)


def test_and_once() -> None:
    extra = replace(cluster()[4], task_id="c.again")
    assert any(
        "has 2 tasks of the kind delete_cluster, exactly one is needed;" in line for line in said(*cluster(), extra)
    )


Break = Callable[[], list[Task]]
BROKEN: dict[str, tuple[Break, str]] = {
    "plan no setup": (lambda: change("plan", is_setup=False), "d.c.plan: must be a setup and is none"),
    "create no setup": (lambda: change("create", is_setup=False), "d.c.create: must be a setup and is none"),
    "collect ordinary": (
        lambda: change("collect", is_teardown=False, trigger_rule="all_success"),
        "d.c.collect: must be a teardown and is none",
    ),
    "report ordinary": (
        lambda: change("report", is_teardown=False, trigger_rule="all_success"),
        "d.c.report: must be a teardown and is none",
    ),
    "rule": (lambda: change("delete", trigger_rule="all_done"), "d.c.delete: its trigger rule is all_done, and"),
    "past": (lambda: change("report", depends_on_past=True), "d.c.report: depends_on_past or wait_for_downstream"),
    "unbound from plan": (
        lambda: change("plan", downstream=frozenset({"c.create", "c.collect", "c.report"})),
        "d.c.delete: is no teardown of c.plan: when create fails half-way, nothing is deleted",
    ),
    "unbound from create": (
        lambda: change("create", downstream=frozenset({"c.job", "c.collect", "c.delete"})),
        "d.c.report: is no teardown of c.create",
    ),
    "job without cluster": (
        lambda: change("create", downstream=frozenset({"c.collect", "c.delete", "c.report"})),
        "d.c.job: does not wait for c.create",
    ),
    "job after deletion": (lambda: change("job", downstream=frozenset()), "d.c.delete: does not wait for c.job"),
    "green anyway": (lambda: change("report", fails_run=False), "d.c.report: on_failure_fail_dagrun is off"),
    "branch": (
        lambda: [*cluster(), Task(task_id="b", kind="branch", downstream=frozenset({"c.report"}))],
        "d.b: is a branch, and would skip c.report when it chooses another way",
    ),
    "last": (
        lambda: [*change("report", downstream=frozenset({"x"})), Task(task_id="x", trigger_rule="all_done", line=9)],
        "dags/x.py:9: error: d.x: comes after c.report, which must be the last",
    ),
    "last teardown": (
        lambda: [*change("report", downstream=frozenset({"x"})), Task(task_id="x", fails_run=True, **TEARDOWN)],
        "d.x: comes after c.report",
    ),
    "after plan": (
        lambda: [
            *change("plan", downstream=cluster()[0].downstream | {"x"}),
            Task(task_id="x", trigger_rule="none_failed"),
        ],
        "d.x: its trigger rule is none_failed, and it comes directly after c.plan, where Airflow allows all_success",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_each_way_to_break_it_is_refused_once(how: str) -> None:
    tasks, wanted = BROKEN[how]
    (line,) = said(*tasks())
    assert wanted in line and ": error: " in line


def test_a_teardown_of_the_users_may_come_last() -> None:
    last = Task(task_id="x", is_teardown=True, trigger_rule=TEARDOWN_RULE)
    assert said(*change("report", downstream=frozenset({"x"})), last) == []


def test_a_cycle_ends() -> None:
    """Airflow refuses it, but perhaps after us."""
    assert said(*change("report", downstream=frozenset({"c.plan"})))


def test_time_limits_of_airflow() -> None:
    (line,) = said(*cluster(), dagrun_timeout=5400.0)
    assert line.startswith("dags/x.py:3: error: d: dagrun_timeout (1h 30m) around the cluster 'c': when it passes")
    (line,) = said(*change("job", execution_timeout=60.0))
    assert line.startswith("dags/x.py:7: warning: d.c.job: execution_timeout (1m) does not limit it")
    (line,) = said(*cluster(), default_execution_timeout=60.0)
    assert line.startswith("dags/x.py:3: warning: d: execution_timeout (1m) in default_args does not reach")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{{ ds }}", "ds"),
        ("a/{{ macros.ds_add(ds, 1) }}", "ds"),
        ("{% if logical_date %}x{% endif %}", "logical_date"),
        ("{{ data_interval_start | ds }}/{{ ts_nodash }}", "data_interval_start, ts_nodash"),
        ("{{ dag_run.logical_date }}", "dag_run.logical_date"),
        ("{{ run_date }} {{ params.ds }} {{ dag_run.run_id }} ds", ""),
        ("{% set ds = 1 %}{{ ds }}", ""),
        ("{{ broken", ""),
    ],
)
def test_names_that_runs_of_assets_do_not_have(text: str, names: str) -> None:
    lines = said(*change("job", templates=("x", text)), schedule="assets")
    wanted = f"warning: d.c.job: its templates use {names}, which a run started by an asset does not have; use run_date"
    assert [wanted in line for line in lines] == ([True] if names else [])
    assert said(*change("job", templates=(text,)), schedule="time") == []


def test_half_an_asset_schedule_is_one() -> None:
    other = Task(task_id="x", templates=("{{ ds }}",))
    (line,) = said(*cluster(), other, schedule="assets or time")
    assert line.endswith("use dag_run.run_after")


# ---------------------------------------------------------------- files


def test_deeds_of_a_file() -> None:
    file = DagFile(
        file="dags/x.py",
        imports=(Deed(what="pandas", line=2), Deed(what="dask", line=3, where="helpers.py")),
        work=(Deed(what="starts git", line=1),),
        cpu_s=MAX_CPU_S + 1,
    )
    lines = [str(finding) for finding in findings(file)]
    assert [line.partition(" while ")[0] for line in lines[1:]] == [
        "dags/x.py:1: error: starts git",
        "dags/x.py:2: error: imports pandas",
        "dags/x.py:3: error: imports dask (through helpers.py)",
    ]
    assert lines[0].startswith("dags/x.py: error: takes 6.0 s of CPU time to read; 5 s are allowed here")
    assert {finding.severity for finding in findings(replace(file, uses_mayfly=False))} == {"warning"}
    assert not findings(replace(file, imports=(), work=(), cpu_s=MAX_CPU_S))


def test_an_import_error_is_said_without_its_traceback() -> None:
    error = (
        'Traceback (most recent call last):\n  File "/x.py", line 3, in <module>\n    1 / 0\n    ~~^~~\nE: two\nlines\n'
    )
    (finding,) = findings(DagFile(file="x.py", error=error, error_line=3))
    assert str(finding) == "x.py:3: error: Airflow cannot read this file, and shows none of its DAGs: E: two\nlines"


TASKS = st.builds(
    Task,
    task_id=st.sampled_from("abcdef"),
    kind=st.sampled_from(["plan", "create", "job", "collect", "delete", "report", "branch", "other"]),
    cluster=st.sampled_from(["", "c", "d"]),
    trigger_rule=st.sampled_from(["all_success", "all_done", TEARDOWN_RULE]),
    is_setup=st.booleans(),
    is_teardown=st.booleans(),
    fails_run=st.booleans(),
    downstream=st.frozensets(st.sampled_from("abcdefgh")),
    templates=st.tuples(st.text()),
)


@given(st.lists(TASKS, max_size=8), st.text())
def test_any_dag_gets_an_answer(tasks: list[Task], error: str) -> None:
    file = DagFile(file="x.py", error=error, dags=(Dag(dag_id="d", tasks=tuple(tasks), schedule="assets"),))
    for finding in findings(file):
        assert finding.message and finding.file == "x.py"
