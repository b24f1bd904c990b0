"""Several processes read a file at once, and write at once."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

cache = Path(tempfile.gettempdir(), f"numbers-{os.getpid()}.txt")
cache.write_text("1")
cache.unlink()

with DAG("writes_file", schedule=None):
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
