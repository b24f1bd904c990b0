"""The same for a connection."""

from __future__ import annotations

from airflow.sdk import DAG, BaseHook

from mayfly.airflow.taskgroup import dask_cluster

with DAG("asks_connection", schedule=None):
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py", args=[BaseHook.get_connection("store").host])
