"""The same through a shell."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

os.system("true")

with DAG("runs_shell", schedule=None):
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
