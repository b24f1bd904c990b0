"""A question to the database at each reading, and an error where the variable is not defined."""

from __future__ import annotations

from airflow.sdk import DAG, Variable

from mayfly.airflow.taskgroup import dask_cluster

with DAG("asks_variable", schedule=None):
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py", args=[Variable.get("numbers")])
