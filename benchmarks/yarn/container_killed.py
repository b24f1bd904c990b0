"""A worker's container dies (SIGKILL) after a third of the work: the computation of ../worker_killed.py, on YARN.

A new container must come and its worker must start, so one start of a worker is allowed on top.
"""

from __future__ import annotations

import json

from common.on_yarn import JOB, TARGETS, hadoop, worker_by_hand
from common.pairs import Table, median, pairs_wanted, ratios
from common.runs import create, delete, finish, planned, project
from worker_killed import SCRIPT, WORK_SECONDS

WORKERS_CONTAINER = SCRIPT.replace(
    "os.kill(victim, signal.SIGKILL)",
    "[os.kill(pid, signal.SIGKILL) for pid in victim]",
).replace(
    "next(iter(client.run(os.getpid).values()))",
    "next(iter(client.run(lambda: (os.getppid(), os.getpid())).values()))",
)
"""The nanny dies with its worker, and so the container ends."""


def main() -> None:
    pairs = pairs_wanted()
    count = int(2 * WORK_SECONDS / 0.1)
    with hadoop(), project(JOB, WORKERS_CONTAINER, targets=TARGETS) as home:
        result = home / "result.json"
        run = planned(home)
        create(run)
        record = finish(run, args=(str(result), str(pairs), str(count)))
        delete(run)
        found = json.loads(result.read_text())
        start = [worker_by_hand() for _ in range(3)]
    if record.workers_lost != pairs:
        raise RuntimeError(f"{pairs} workers were killed, the record says {record.workers_lost}")
    allowed = [seconds + median(start) / 1.5 for seconds in found["undisturbed"]]
    table = Table(f"{count} tasks of 100 ms of CPU on 2 workers in containers, one killed after a third", pairs=pairs)
    table.value("undisturbed", found["undisturbed"], "s")
    table.value("one container killed; the result was right each time", found["killed"], "s")
    table.value("one `dask worker` by hand", start, "s")
    table.bound("killed / (undisturbed + a worker's start / 1.5)", ratios(found["killed"], allowed), "x", most=1.5)


if __name__ == "__main__":
    main()
