"""A worker dies (SIGKILL) after a third of the work: is the result right, and how much longer did it take?

Both kinds of run, undisturbed and disturbed, take turns on one cluster. What is compared is the computation alone, from
the first task to the result: with the start of the cluster in both the ratio would only look better.
"""

from __future__ import annotations

import json

from common.pairs import Table, pairs_wanted, ratios
from common.runs import TWO_WORKERS, create, delete, finish, planned, project

WORK_SECONDS = 6.0
SCRIPT = """
import json, os, pathlib, signal, sys, threading, time
from dask.distributed import Client, wait

def burn(number, seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    return number

def compute(client, count, victim):
    client.wait_for_workers(2)
    began = time.perf_counter()
    parts = client.map(burn, range(count), seconds=0.1, pure=False)
    total = client.submit(sum, parts)
    if victim is not None:
        while sum(part.done() for part in parts) < count / 3:
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)
    assert total.result() == count * (count - 1) // 2
    return time.perf_counter() - began

if __name__ == "__main__":
    path, pairs, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found = {"undisturbed": [], "killed": []}
    with Client() as client:
        client.wait_for_workers(2)
        compute(client, 20, None)
        for number in range(pairs):
            for name in sorted(found, reverse=number % 2 == 0):
                client.wait_for_workers(2)
                victim = next(iter(client.run(os.getpid).values())) if name == "killed" else None
                found[name].append(compute(client, count, victim))
    pathlib.Path(path).write_text(json.dumps(found))
"""


def main() -> None:
    pairs = pairs_wanted()
    count = int(2 * WORK_SECONDS / 0.1)
    with project(TWO_WORKERS, SCRIPT) as home:
        result = home / "result.json"
        run = planned(home)
        create(run)
        record = finish(run, args=(str(result), str(pairs), str(count)))
        delete(run)
        found = json.loads(result.read_text())
    if record.workers_lost != pairs:
        raise RuntimeError(f"{pairs} workers were killed, the record says {record.workers_lost}")
    table = Table(f"{count} tasks of 100 ms of CPU on 2 workers, one worker killed after a third", pairs=pairs)
    table.value("undisturbed", found["undisturbed"], "s")
    table.value("one worker killed; the result was right each time", found["killed"], "s")
    table.bound("killed / undisturbed", ratios(found["killed"], found["undisturbed"]), "x", most=1.5)


if __name__ == "__main__":
    main()
