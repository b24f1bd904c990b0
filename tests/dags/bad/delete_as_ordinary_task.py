"""A failed job would skip the deletion."""

from __future__ import annotations

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with DAG("delete_as_ordinary_task", schedule=None) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
    cluster.deleted.is_teardown = False
    cluster.deleted.trigger_rule = "all_success"
