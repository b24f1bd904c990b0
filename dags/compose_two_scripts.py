"""Two scripts on one cluster, with tasks before, after, and after the deletion: a DAG of Airflow written by hand."""

from __future__ import annotations

from airflow.sdk import DAG, task

from mayfly import dask_cluster


@task
def choose_seed() -> int:
    """Results of other tasks can be arguments."""
    return 7


@task
def announce() -> None:
    """Starts when the jobs have ended; the cluster may still be there."""
    print("the numbers are ready")


@task
def close_the_books() -> None:
    """Starts when the deletion is proven."""
    print("no machine of this run is left")


with DAG("compose_two_scripts", schedule=None, tags=["example"], is_paused_upon_creation=False, doc_md=__doc__):
    seed = choose_seed()
    with dask_cluster("compose") as cluster:
        folder = "{{ outputs.numbers }}/two-scripts"
        # They run one after another even without the arrow: two jobs at once would fight for the same workers.
        cluster.run("prepare.py", args=[folder, seed]) >> cluster.run("summarise.py", args=[folder])
    cluster >> announce()
    cluster.deleted >> close_the_books()
