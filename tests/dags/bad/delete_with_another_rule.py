"""Runs only when all is well."""

from __future__ import annotations

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with DAG("delete_with_another_rule", schedule=None) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
    cluster.deleted.trigger_rule = "all_success"
