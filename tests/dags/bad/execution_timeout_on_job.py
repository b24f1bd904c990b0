"""Waiting does not count."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with DAG("execution_timeout_on_job", schedule=None) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py").execution_timeout = timedelta(minutes=90)
