"""DAGs of the verdict matrix. What a run meets is said when it is triggered: params `do` and `target`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task, task_group

from mayfly import dask_cluster
from mayfly.airflow.compat import AirflowSkipException

PARAMS = {"do": "quick", "target": "local"}
ARGS = ["{{ outputs.marks }}", "{{ params.do }}"]
COMMON: dict[str, Any] = {"schedule": None, "is_paused_upon_creation": False, "params": PARAMS, "max_active_runs": 30}


def plain(dag_id: str, *, max_age: float | None = None, do: str = "quick", target: str = "local") -> DAG:
    with DAG(dag_id, **{**COMMON, "params": {"do": do, "target": target}}, auto_register=False) as dag:
        with dask_cluster(
            "step", target="{{ params.target }}", group_id="cluster", retry_delay=1.0, max_age=max_age
        ) as cluster:
            cluster.run(args=ARGS)
    return dag


step_plain = plain("plain")
# Pausing, and Airflow's end, are of a whole DAG.
paused_short = plain("paused_short", do="hold", target="short-lease")
paused_long = plain("paused_long", do="hold", target="short-lease")
paused_deleted = plain("paused_deleted", do="hold", target="short-lease")
expiring = plain("expiring", do="hold", target="short-lease", max_age=240.0)
gcp_expiring = plain("gcp_expiring", do="hold", target="gcp-short-lease", max_age=240.0)
inline_once = plain("inline_once", do="hold", target="short-lease")
inline_twice = plain("inline_twice", do="hold", target="short-lease")

with DAG("two_jobs", **COMMON):
    with dask_cluster("step", target="{{ params.target }}", group_id="cluster", retry_delay=1.0) as two:
        two.run(args=ARGS, task_id="first")
        two.run(args=ARGS, task_id="second")


@task_group
def each(what: Any) -> None:
    with dask_cluster("step", retry_delay=1.0) as cluster:
        cluster.run(args=["{{ outputs.marks }}", what])


@task
def nothing() -> list[str]:
    return []


with DAG("mapped_two", **COMMON):
    each.expand(what=["quick", "quick"])

with DAG("mapped_three", **COMMON):
    each.expand(what=["quick", "wrong", "quick"])

with DAG("mapped_none", **COMMON):
    each.expand(what=nothing())


def skips(dag_id: str, *, may_skip: bool) -> DAG:
    with DAG(dag_id, **COMMON, auto_register=False) as dag:

        @task
        def not_today() -> None:
            raise AirflowSkipException

        with dask_cluster("step", group_id="cluster", retry_delay=1.0) as cluster:
            not_today() >> cluster.run(args=ARGS, may_skip=may_skip)
    return dag


skips_red = skips("skips_red", may_skip=False)
skips_green = skips("skips_green", may_skip=True)

HOSTILE = {
    "depends_on_past": True,
    "wait_for_downstream": True,
    "pool": "closed",
    "retries": 5,
    "retry_delay": timedelta(hours=1),
    "trigger_rule": "all_done",
}
MINE: dict[str, Any] = {"pool": "default_pool", "depends_on_past": False, "wait_for_downstream": False, "retries": 0}

with DAG("users_own", **COMMON, default_args=HOSTILE):

    @task(**MINE, trigger_rule="all_success")
    def say(what: str) -> None:
        print(what)

    with dask_cluster("step", group_id="cluster", retry_delay=1.0) as around:
        begin, end = around.run(args=ARGS, task_id="first"), around.run(args=ARGS, task_id="second")
        begin >> say.override(task_id="between")("between") >> end
    say.override(task_id="before")("before") >> around >> say.override(task_id="after")("after")
