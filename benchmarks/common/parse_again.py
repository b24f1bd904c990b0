"""`python -m common.parse_again FOLDER TIMES`: parse and synchronise as a dag-processor, and say what was done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path


def parse_again(folder: str, times: int) -> None:
    """Prints seconds per parse, the network calls made meanwhile, and what came of the last parse."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ImportError:
        from airflow.models.dagbag import DagBag, sync_bag_to_db

    connected: list[str] = []
    parsing = False

    def watch(event: str, args: tuple[object, ...]) -> None:
        if parsing and event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            connected.append(event)

    sys.addaudithook(watch)
    DagBundlesManager().sync_bundles_to_db()
    seconds, dags, errors = [], 0, {}
    for _ in range(times):
        parsing, began = True, time.perf_counter()
        bag = DagBag(folder, bundle_path=Path(folder))
        parsing = False
        seconds.append(time.perf_counter() - began)
        dags, errors = len(bag.dags), bag.import_errors
        sync_bag_to_db(bag, "dags-folder", None)
        _run_once(bag.dags)
    print(json.dumps({"seconds": seconds, "connected": connected, "dags": dags, "errors": errors}))


def _run_once(dag_ids: Iterable[str]) -> None:
    """A run of each: while its newest version has none, Airflow changes that instead of making another."""
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.utils.types import DagRunTriggeredByType

    for dag_id in dag_ids:
        trigger_dag(dag_id=dag_id, triggered_by=DagRunTriggeredByType.TEST, run_id=f"parse-{time.time_ns()}")


if __name__ == "__main__":
    parse_again(sys.argv[1], int(sys.argv[2]))
