"""A branch skips what it does not choose, teardowns too."""

from __future__ import annotations

from airflow.sdk import DAG, task

from mayfly.airflow.taskgroup import dask_cluster

with DAG("branch_over_delete", schedule=None) as dag:

    @task.branch
    def choose() -> str:
        return "other_way"

    @task
    def other_way() -> None: ...

    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
    choose() >> [other_way(), cluster.deleted]
