"""All of this is allowed: nothing here can keep a cluster alive or hide that it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, Asset, task, task_group

from mayfly.airflow.taskgroup import dask_cluster

if TYPE_CHECKING:
    import pandas as pd


@task.branch
def perhaps() -> str:
    return "compose.plan"


@task.short_circuit
def only_on_mondays() -> bool:
    return True


@task
def otherwise() -> None: ...


@task(trigger_rule="all_done")
def clean_up() -> None:
    import pandas as pd

    print(pd.__version__)


def frame() -> pd.DataFrame:
    """Only its type is named while the file is read."""
    import pandas as pd

    return pd.DataFrame()


with DAG("chosen", schedule=None):
    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py")
    # The whole cluster is skipped, its teardowns with it: there is nothing to delete.
    perhaps() >> [otherwise(), cluster]
    only_on_mondays() >> cluster
    cluster >> clean_up()
    cluster.deleted >> clean_up.override(task_id="after_deletion")()

with DAG("optional_job", schedule=[Asset("numbers")], default_args={"depends_on_past": True}):
    with dask_cluster("compose") as cluster:
        check = only_on_mondays()
        first = cluster.run("prepare.py", args=["{{ run_date }}"], may_skip=True)
        check >> first >> cluster.run("summarise.py")

with DAG("two_in_a_row", schedule="@daily"):
    with dask_cluster("compose", group_id="first") as first_cluster:
        first_cluster.run("prepare.py", args=["{{ ds }}"])
    with dask_cluster("compose", group_id="second") as second_cluster:
        second_cluster.run("summarise.py")
    first_cluster >> second_cluster
    first_cluster.deleted >> clean_up()


@task_group
def one_of_many(seed: int) -> None:
    with dask_cluster("compose") as mapped:
        mapped.run("prepare.py", args=[seed])


with DAG("many", schedule=None):
    one_of_many.expand(seed=[1, 2, 3])
