"""The same, where dask_cluster() cannot see it."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with DAG("dagrun_timeout_later", schedule=None) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
    dag.dagrun_timeout = timedelta(hours=2)
