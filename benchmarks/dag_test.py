"""A run of six tasks in a warm, in-process `dag.test()`, against the same work in a plain script and an empty DAG.

Warm: Airflow is imported, its database is there, and each DAG has run once. The plain script is a fresh Python that
makes a LocalCluster, as the job's driver must, and does the same tasks. The empty DAG has six Python tasks that do
nothing, in a row. On Airflow 3.1 `dag.test()` builds its in-process API anew for every task; it is cached here as later
versions do by themselves, or that alone would take 4 to 9 s of every run.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import airflow_home  # before anything of Airflow
from common.pairs import Table, differences, interleave, pairs_wanted, ratios, timed
from common.runs import TWO_WORKERS, project

SCRIPT = """
from dask.distributed import Client
if __name__ == "__main__":
    with Client() as client:
        client.wait_for_workers(2)
        assert sum(client.gather(client.map(abs, range(20)))) == 190
"""
PLAIN = """
from dask.distributed import Client, LocalCluster
if __name__ == "__main__":
    one = dict(threads_per_worker=1, memory_limit="600 MB", dashboard_address="127.0.0.1:0")
    with LocalCluster(n_workers=2, **one) as cluster:
        with Client(cluster) as client:
            client.wait_for_workers(2)
            assert sum(client.gather(client.map(abs, range(20)))) == 190
"""
EMPTY = """
from airflow.sdk import DAG, chain, task

with DAG("empty", schedule=None):
    def nothing() -> None:
        pass

    chain(*(task(task_id=f"task_{number}", retries=0)(nothing)() for number in range(6)))
"""


def dags(folder: Path) -> dict[str, Any]:
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag
    return dict(DagBag(str(folder)).dags)


def run_of(dag: Any) -> Callable[[], float]:
    """Seconds of one good run of the DAG."""

    def run() -> float:
        began = time.perf_counter()
        done = dag.test()
        seconds = time.perf_counter() - began
        if done.state != "success":
            raise RuntimeError(f"{dag.dag_id} ended {done.state}")
        return seconds

    return run


def cache_the_api() -> None:
    from airflow.sdk.execution_time import supervisor

    if not hasattr(supervisor.in_process_api_server, "cache_info"):
        supervisor.in_process_api_server = functools.lru_cache(1)(supervisor.in_process_api_server)


def tasks_of_last_run(dag_id: str) -> dict[str, float]:
    """Seconds of each task of the DAG's last run."""
    import sqlite3

    with sqlite3.connect(airflow_home.HOME / "airflow.db") as database:
        rows = database.execute(
            "select task_id, (julianday(end_date) - julianday(start_date)) * 86400 from task_instance where dag_id = ?"
            " and run_id = (select run_id from dag_run where dag_id = ? order by id desc limit 1) order by start_date",
            (dag_id, dag_id),
        ).fetchall()
    return {name.rpartition(".")[2]: seconds for name, seconds in rows}


def main() -> None:
    pairs = pairs_wanted()
    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    (folder / "jobs.py").write_text((airflow_home.ROOT / "dags" / "jobs.py").read_text())
    (folder / "empty.py").write_text(EMPTY)
    airflow_home.migrate()
    with project(TWO_WORKERS, SCRIPT) as home:
        plain = home / "plain.py"
        plain.write_text(PLAIN)
        cache_the_api()
        found = dags(folder)
        per_task: dict[str, list[float]] = {}
        mayfly = run_of(found["bench"])

        def with_tasks() -> float:
            seconds = mayfly()
            for name, part in tasks_of_last_run("bench").items():
                per_task.setdefault(name, []).append(part)
            return seconds

        silent = functools.partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ways = {
            "mayfly": with_tasks,
            "plain": timed(lambda: silent([sys.executable, str(plain)])),
            "empty": run_of(found["empty"]),
        }
        series = interleave(ways, pairs=pairs, warm_up=True)
    table = Table(f"a run of six tasks by dag.test() (Airflow {airflow_home.version()})", pairs=pairs)
    table.value("Mayfly", series["mayfly"], "s")
    table.value("the same work in a plain script", series["plain"], "s")
    table.value("a DAG of six tasks that do nothing", series["empty"], "s")
    table.bound("Mayfly - plain script", differences(series["mayfly"], series["plain"]), "s", most=0.5)
    table.bound("Mayfly / empty DAG", ratios(series["mayfly"], series["empty"]), "x", most=2.5)
    both = [plain + empty for plain, empty in zip(series["plain"], series["empty"], strict=True)]
    table.value("Mayfly - (plain script + empty DAG)", differences(series["mayfly"], both), "s")
    for name, seconds in per_task.items():
        table.value(f"task {name}", seconds[1:], "s")


if __name__ == "__main__":
    main()
