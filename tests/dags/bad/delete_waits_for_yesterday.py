"""A failed run keeps the next run's cluster alive."""

from __future__ import annotations

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with DAG("delete_waits_for_yesterday", schedule=None) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
    cluster.deleted.depends_on_past = True
