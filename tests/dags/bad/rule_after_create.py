"""Airflow refuses the whole file."""

from __future__ import annotations

from airflow.sdk import DAG, task

from mayfly.airflow.taskgroup import dask_cluster

with DAG("rule_after_create", schedule=None) as dag:

    @task(trigger_rule="all_done")
    def say_hello() -> None: ...

    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
    dag.get_task("compose.create_cluster") >> say_hello()
