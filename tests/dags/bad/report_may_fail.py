"""The run would be green in spite of a failed report."""

from __future__ import annotations

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with DAG("report_may_fail", schedule=None) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
    dag.get_task("compose.report").on_failure_fail_dagrun = False
