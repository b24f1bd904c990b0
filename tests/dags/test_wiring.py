"""The task group: whatever a user writes around it, the cluster is deleted and the verdict is report's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, TaskGroup, task, task_group
from hypothesis import given
from hypothesis import strategies as st

from mayfly.airflow import members as names
from mayfly.airflow.operators import SPARE_TRIES
from mayfly.airflow.taskgroup import DaskCluster, dask_cluster
from mayfly.errors import InputError
from mayfly.spec.job import JobSpec

JOB = JobSpec(name="trips", folder=Path("/nowhere/jobs/trips"), retries=1)
PLACES = (names.PLAN, names.CREATE, names.COLLECT, names.DELETE, names.REPORT)


def ids(tasks: Any) -> set[str]:
    return {found if isinstance(found, str) else found.task_id for found in tasks}


def group(dag: DAG, name: str, prefix: str = "trips") -> Any:
    return dag.get_task(f"{prefix}.{name}")


def test_setups_and_teardowns() -> None:
    with DAG("d", schedule=None) as dag, dask_cluster(JOB) as cluster:
        cluster.run()
    plan, create, collect, delete, report = (group(dag, name) for name in PLACES)
    assert plan.is_setup and create.is_setup
    assert collect.is_teardown and delete.is_teardown and report.is_teardown
    for teardown in (collect, delete, report):
        assert {"trips.plan", "trips.create_cluster"} <= teardown.upstream_task_ids, "teardowns of both setups"
    assert [report.on_failure_fail_dagrun, delete.on_failure_fail_dagrun, collect.on_failure_fail_dagrun] == [
        True,
        False,
        False,
    ]
    assert create.upstream_task_ids == {"trips.plan"}
    assert group(dag, "run_job").upstream_task_ids == {"trips.create_cluster"}
    assert "trips.run_job" in collect.upstream_task_ids
    assert "trips.collect_metrics" in delete.upstream_task_ids
    assert "trips.delete_cluster" in report.upstream_task_ids
    assert cluster.deleted is delete


def test_what_comes_before_and_after() -> None:
    with DAG("d", schedule=None) as dag:

        @task
        def before() -> None: ...

        @task
        def after() -> None: ...

        @task
        def after_deletion() -> None: ...

        with dask_cluster(JOB) as cluster:
            cluster.run("a.py") >> cluster.run("b.py")
        before() >> cluster >> after()
        cluster.deleted >> after_deletion()
    assert group(dag, "plan").upstream_task_ids == {"before"}
    assert dag.get_task("after").upstream_task_ids == {"trips.b"}, "waits for the jobs, not for the deletion"
    assert dag.get_task("after_deletion").upstream_task_ids == {"trips.delete_cluster"}
    dag.check_cycle()


def test_own_tasks_inside_the_group_end_before_the_cluster_does() -> None:
    with DAG("d", schedule=None) as dag:

        @task
        def prepare() -> None: ...

        @task
        def inspect() -> None: ...

        with dask_cluster(JOB) as cluster:
            prepare() >> cluster.run() >> inspect()
    assert group(dag, "run_job").upstream_task_ids == {"trips.create_cluster", "trips.prepare"}
    assert "trips.inspect" in group(dag, "collect_metrics").upstream_task_ids
    assert cluster._members.jobs.keys() == {"run_job"}, "only jobs are judged"


def test_jobs_run_one_after_another() -> None:
    with DAG("d", schedule=None) as dag, dask_cluster(JOB) as cluster:
        for name in "abc":
            cluster.run(f"{name}.py")
    assert [sorted(group(dag, name).upstream_task_ids) for name in "abc"] == [
        ["trips.create_cluster"],
        ["trips.a"],
        ["trips.b"],
    ]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8), st.permutations(range(5)))
def test_any_order_of_the_user_stays_and_no_circle_is_made(edges: list[tuple[int, int]], order: list[int]) -> None:
    """Whatever acyclic edges a user draws between jobs: all are kept, all jobs end up in one row."""
    with DAG("d", schedule=None) as dag, dask_cluster(JOB) as cluster:
        jobs = [cluster.run(f"j{i}.py") for i in range(5)]
        drawn = {(order[a], order[b]) for a, b in edges if a < b}
        for a, b in drawn:
            jobs[a] >> jobs[b]
    dag.check_cycle()
    for a, b in drawn:
        assert jobs[a].task_id in ids(jobs[b].get_flat_relatives(upstream=True))
    ancestors = sorted(len(ids(job.get_flat_relatives(upstream=True)) & ids(jobs)) for job in jobs)
    assert ancestors == [0, 1, 2, 3, 4], "each job waits for all that come before it"


def test_order_by_way_of_a_foreign_task() -> None:
    with DAG("d", schedule=None) as dag:

        @task
        def between() -> None: ...

        with dask_cluster(JOB) as cluster:
            first, second = cluster.run("a.py"), cluster.run("b.py")
            second >> between() >> first
    dag.check_cycle()
    assert "trips.b" in ids(first.get_flat_relatives(upstream=True))


HOSTILE = {
    "depends_on_past": True,
    "wait_for_downstream": True,
    "trigger_rule": "all_done",
    "retries": 0,
    "retry_exponential_backoff": True,
    "pool": "tiny",
    "pool_slots": 99,
    "max_active_tis_per_dag": 1,
    "max_active_tis_per_dagrun": 1,
    "execution_timeout": timedelta(seconds=1),
    "priority_weight": 1,
    "weight_rule": "upstream",
    "do_xcom_push": False,
}


def test_default_args_cannot_leak_a_cluster() -> None:
    with DAG("d", schedule=None, default_args=HOSTILE) as dag, dask_cluster(JOB) as cluster:
        cluster.run()
    tasks = {found.task_id.removeprefix("trips."): found for found in dag.tasks}
    retries = {name: found.retries for name, found in tasks.items()}
    assert retries == {
        "plan": 2,
        "create_cluster": 2,
        "run_job": 1 + SPARE_TRIES,
        "collect_metrics": 0,
        "delete_cluster": 5,
        "report": 2,
    }
    for name, found in tasks.items():
        assert (found.depends_on_past, found.wait_for_downstream) == (False, False), name
        assert (found.pool, found.pool_slots, found.execution_timeout) == ("default_pool", 1, None), name
        assert (found.max_active_tis_per_dag, found.max_active_tis_per_dagrun) == (None, None), name
        assert found.retry_exponential_backoff in (False, 0), name
        rule = "all_done_setup_success" if found.is_teardown else "all_success"
        assert str(getattr(found.trigger_rule, "value", found.trigger_rule)) == rule, name
    assert tasks["plan"].do_xcom_push and not tasks["run_job"].do_xcom_push, "plan's handle is the only XCom"
    assert tasks["delete_cluster"].priority_weight > max(t.priority_weight for n, t in tasks.items() if "del" not in n)


def test_pool_and_queue_of_the_group_count() -> None:
    with DAG("d", schedule=None) as dag, dask_cluster(JOB, pool="big", queue="special") as cluster:
        cluster.run()
    assert {(found.pool, found.queue) for found in dag.tasks} == {("big", "special")}


def test_mapped_over_clusters() -> None:
    with DAG("d", schedule=None) as dag:

        @task
        def before(seed: int) -> int:
            return seed

        @task
        def after() -> None: ...

        @task_group
        def each(seed: Any) -> None:
            with dask_cluster(JOB) as cluster:
                cluster.run(args=["{{ run_date }}", before(seed)])
                cluster.run("b.py")
            cluster >> after()

        each.expand(seed=[1, 2])
    plan = group(dag, "plan", "each")
    assert plan.members.mapped and plan.members.group_id == "each"
    assert group(dag, "after", "each").upstream_task_ids == {"each.b"}, "waits for the jobs alone"
    assert "each.before" in group(dag, "run_job", "each").upstream_task_ids
    assert {found.task_id for found in dag.tasks if found.is_teardown} == {
        "each.collect_metrics",
        "each.delete_cluster",
        "each.report",
    }
    dag.validate()
    dag.check_cycle()


def test_no_group_within_a_mapped_one() -> None:
    """After a clear Airflow can no longer run, or delete, anything of such a DAG."""

    def with_a_group_id() -> None:
        dask_cluster(JOB, group_id="mine")

    def deeper() -> None:
        with TaskGroup("inner"):
            dask_cluster(JOB)

    def twice() -> None:
        dask_cluster(JOB)
        dask_cluster(JOB)

    for wrong in (with_a_group_id, deeper, twice):

        @task_group
        def each(seed: Any, wrong: Callable[[], None] = wrong) -> None:
            wrong()

        with DAG("d", schedule=None), pytest.raises(InputError, match="a mapped group holds one dask_cluster"):
            each.expand(seed=[1, 2])


def test_a_skip_is_not_passed_on_by_our_own_edges() -> None:
    with DAG("d", schedule=None) as dag, dask_cluster(JOB) as cluster:
        cluster.run("a.py", may_skip=True)
        cluster.run("b.py")
    assert group(dag, "b").trigger_rule == "none_failed"
    assert group(dag, "report").members.jobs["a"].may_skip


def test_args_of_the_job_are_those_of_its_own_script() -> None:
    job = JOB.model_copy(update={"args": ("{{ run_date }}",)})
    with DAG("d", schedule=None), dask_cluster(job) as cluster:
        own, other = cluster.run(), cluster.run("other.py")
    assert (own.args, other.args) == (["{{ run_date }}"], [])


@pytest.mark.parametrize("name", [*PLACES, "run_job"])
def test_a_name_that_is_taken(name: str) -> None:
    with DAG("d", schedule=None), pytest.raises(InputError, match="another task_id"), dask_cluster(JOB) as cluster:
        cluster.run()
        cluster.run("x.py", task_id=name)


def test_a_cluster_without_a_job() -> None:
    with DAG("d", schedule=None), pytest.raises(InputError, match="no job runs"), dask_cluster(JOB):
        pass


def test_too_late_and_too_early() -> None:
    with DAG("d", schedule=None):
        cluster: DaskCluster = dask_cluster(JOB)
        with pytest.raises(InputError, match="after the end"):
            _ = cluster.deleted
        with cluster:
            cluster.run()
        with pytest.raises(InputError, match="after the end"):
            cluster.run("late.py")


def test_an_error_of_the_user_is_not_hidden() -> None:
    with DAG("d", schedule=None), pytest.raises(ZeroDivisionError), dask_cluster(JOB):
        _ = 1 / 0


def test_a_timeout_of_the_dag_run_is_refused() -> None:
    """Airflow ends such a run without its teardowns."""
    with DAG("d", schedule=None, dagrun_timeout=timedelta(hours=1)):
        with pytest.raises(InputError, match="dagrun_timeout"), dask_cluster(JOB) as cluster:
            cluster.run()


def test_public_names() -> None:
    import mayfly

    assert mayfly.__all__ == ["build_dags", "dask_cluster"]
    assert mayfly.dask_cluster is dask_cluster
    with pytest.raises(AttributeError, match="no attribute 'dask_clutser'"):
        mayfly.dask_clutser  # noqa: B018
