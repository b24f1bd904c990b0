"""The loop that somebody would write without a factory: the same six tasks, wired the same way, for every number."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Asset, Param, TaskGroup

from mayfly.airflow.members import Job, Members
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
from mayfly.spec.job import JobSpec


def hand_written(job: JobSpec, count: int) -> dict[str, DAG]:
    dags = {}
    for number in range(count):
        with DAG(
            f"job-{number}",
            description=f"Daily figures, number {number}",
            doc_md=f"Daily figures, number {number}",
            schedule=f"{number % 60} 6 * * *",
            start_date=datetime(2026, 1, 31, tzinfo=UTC),
            catchup=False,
            max_active_runs=1,
            tags=["daily", "mayfly"],
            default_args={"owner": "data"},
            params={"rows": Param(100, type="integer", minimum=1)},
        ) as dag:
            with TaskGroup("cluster"):
                members = Members(group_id="cluster", mapped=False)
                members.jobs["run_job"] = Job(retries=job.retries, timeout=None, may_skip=False)

                def common(retries: int, members: Members = members) -> dict[str, object]:
                    settings = pins(retries=retries, pool=None, queue=None)
                    return {"job": job, "target": "local", "members": members, **settings}

                plan = PlanOperator(task_id="plan", **common(2)).as_setup()
                create = CreateClusterOperator(task_id="create_cluster", do_xcom_push=False, **common(2)).as_setup()
                run = RunJobOperator(
                    task_id="run_job",
                    name="run_job",
                    script=job.script,
                    args=list(job.args),
                    timeout=None,
                    attempts=1 + job.retries,
                    do_xcom_push=False,
                    outlets=[Asset(f"data/{number}")],
                    **common(job.retries + SPARE_TRIES),
                )
                collect = CollectMetricsOperator(task_id="collect_metrics", do_xcom_push=False, **common(0))
                delete = DeleteClusterOperator(
                    task_id="delete_cluster", do_xcom_push=False, priority_weight=HIGHEST_PRIORITY, **common(5)
                )
                report = ReportOperator(task_id="report", do_xcom_push=False, **common(2))
                plan >> create >> run >> collect >> delete >> report
                collect.as_teardown(setups=[plan, create])
                delete.as_teardown(setups=[plan, create])
                report.as_teardown(setups=[plan, create], on_failure_fail_dagrun=True)
        dags[dag.dag_id] = dag
    return dags
