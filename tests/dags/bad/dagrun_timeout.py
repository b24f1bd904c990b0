"""When it passes, no teardown runs."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with DAG("dagrun_timeout", schedule=None, dagrun_timeout=timedelta(hours=2)) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
