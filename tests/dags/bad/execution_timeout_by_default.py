"""Does not reach the cluster's tasks."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with DAG("execution_timeout_by_default", schedule=None, default_args={"execution_timeout": timedelta(hours=1)}) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
