"""Several processes read a file at once, and write at once."""

from __future__ import annotations

import tempfile

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with tempfile.NamedTemporaryFile() as file:
    file.write(b"1")

with DAG("writes_file", schedule=None):
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
