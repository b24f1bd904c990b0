"""A run started by an asset has no logical date."""

from __future__ import annotations

from airflow.sdk import DAG, Asset

from mayfly.airflow.taskgroup import dask_cluster

with DAG("ds_with_assets", schedule=[Asset("numbers")]) as dag:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py", args=["--day={{ ds }}", "--at={{ dag_run.logical_date }}", "{{ run_date }}"])
