"""Every component pays for it, every few seconds."""

from __future__ import annotations

import pandas as pd
from airflow.sdk import DAG

from mayfly.airflow.taskgroup import dask_cluster

with DAG("heavy_import", schedule=None) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py", args=[str(pd.Timestamp(0))])
