"""Git is asked once every few seconds."""

from __future__ import annotations

import subprocess

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

subprocess.run(["true"], check=True)

with DAG("starts_program", schedule=None):
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
