"""Nobody waits for nothing on purpose; retries do."""

from __future__ import annotations

import time

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

time.sleep(0.001)

with DAG("sleeps", schedule=None):
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
