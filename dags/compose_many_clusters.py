"""One cluster for each seed, mapped: a DAG of Airflow written by hand. Each cluster has its own plan and receipt."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task, task_group

from mayfly import dask_cluster


@task
def seeds() -> list[int]:
    return [1, 2]


@task_group
def one_cluster(seed: Any) -> None:
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py", args=["{{ outputs.numbers }}/many-clusters-{{ ti.map_index }}", seed])


with DAG("compose_many_clusters", schedule=None, tags=["example"], is_paused_upon_creation=False, doc_md=__doc__):
    one_cluster.expand(seed=seeds())
