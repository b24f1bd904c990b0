"""The last task is green, and so the run."""

from __future__ import annotations

from airflow.sdk import DAG, task

from mayfly.airflow.taskgroup import dask_cluster

with DAG("after_report", schedule=None) as dag:

    @task(trigger_rule="all_done")
    def all_is_well() -> None: ...

    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
    dag.get_task("compose.report") >> all_is_well()
