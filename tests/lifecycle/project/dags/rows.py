"""DAGs of Airflow in which something goes wrong; retries come soon, so that tests need not wait."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task_group

from mayfly import dask_cluster

# default_args are those of a user who knows nothing of clusters: none of them may count.
HOSTILE = {"depends_on_past": True, "trigger_rule": "all_done", "retries": 9, "pool": "no_such_pool"}


def row(dag_id: str, job: str, target: str) -> DAG:
    with DAG(dag_id, schedule=None, is_paused_upon_creation=False, default_args=HOSTILE, auto_register=False) as dag:
        with dask_cluster(job, target=target, group_id="cluster", retry_delay=1.0) as cluster:
            cluster.run()
    return dag


dies_during_create = row("dies_during_create", "quick", "dies-during-create")
refuses_create = row("refuses_create", "quick", "refuses-create")
never_deletes = row("never_deletes", "quick", "never-deletes")


@task_group
def each(seed: Any) -> None:
    with dask_cluster("quick", retry_delay=1.0) as cluster:
        cluster.run(args=["{{ outputs.marks }}", "{{ run_date }}", seed])


with DAG("mapped", schedule=None, is_paused_upon_creation=False) as mapped:
    each.expand(seed=[1, 2])
