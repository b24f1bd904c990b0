"""The helper imports numpy."""

from __future__ import annotations

from airflow.sdk import DAG
from lint_helper import number

from mayfly.airflow.taskgroup import dask_cluster

with DAG("heavy_through_helper", schedule=None) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py", args=[str(number)])
