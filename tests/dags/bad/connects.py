"""The network is not there, or slow, when a file is read."""

from __future__ import annotations

import socket
from contextlib import suppress

from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with suppress(OSError):
    socket.create_connection(("127.0.0.1", 9), timeout=1).close()

with DAG("connects", schedule=None):
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
