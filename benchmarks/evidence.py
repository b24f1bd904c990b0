"""What watching a job costs: CPU of supervisor and host while two workers are busy, and their memory.

One job has two clusters in hand: its own, and a LocalCluster in a process of its own. It keeps both busy in turn with
the same tasks and reads what each process has used. Scheduler and nannies are in one process with both; supervisor,
sampling, log, status file and TLS are the difference. Memory is compared with a `dask scheduler` that idles.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from common.pairs import Table, differences, median, pairs_wanted
from common.runs import TWO_WORKERS, create, delete, finish, planned, project

BUSY_SECONDS = 5.0
SCRIPT = """
import json, os, pathlib, sys, time
import psutil
from dask.distributed import Client

def burn(number, seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    return number

def seconds(processes):
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)

def processes(client):
    return [psutil.Process(pid) for pid in client.run(os.getpid).values()]

def measure(client, keepers, count):
    workers = processes(client)
    before, before_work = [seconds([process]) for process in keepers], seconds(workers)
    assert len(client.gather(client.map(burn, range(count), seconds=0.05, pure=False))) == count
    each = [after - then for after, then in zip([seconds([process]) for process in keepers], before)]
    return {"keepers": sum(each), "each": each, "work": seconds(workers) - before_work}

def memory(process):
    found = process.memory_full_info()
    return {"rss": found.rss, "pss": getattr(found, "pss", found.rss)}

if __name__ == "__main__":
    path, address, theirs, pairs, count = sys.argv[1:]
    supervisor = psutil.Process(os.getppid())
    host = next(child for child in supervisor.children() if child.pid != os.getpid())
    bare, idle = [psutil.Process(int(pid)) for pid in theirs.split(",")]
    with Client() as ours, Client(address) as other:
        for client in (ours, other):
            client.wait_for_workers(2)
            measure(client, [bare], 20)
        found = {"mayfly": [], "bare": []}
        for number in range(int(pairs)):
            ways = [("mayfly", ours, [supervisor, host]), ("bare", other, [bare])]
            for name, client, keepers in ways if number % 2 == 0 else reversed(ways):
                found[name].append(measure(client, keepers, int(count)))
        found["memory"] = {"supervisor": memory(supervisor), "host": memory(host), "LocalCluster": memory(bare)}
        found["memory"]["idle scheduler"] = memory(idle)
    pathlib.Path(path).write_text(json.dumps(found))
"""


BARE = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    one = dict(threads_per_worker=1, memory_limit="600 MB", dashboard_address="127.0.0.1:0")
    cluster = LocalCluster(n_workers=2, **one)
    print(cluster.scheduler_address, flush=True)
    time.sleep(600)
"""
SCHEDULER = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]


@contextmanager
def dask_alone() -> Iterator[tuple[str, list[int]]]:
    """The address of a cluster of Dask's own, and the pids of its process and of a scheduler that has nothing to do."""
    python = [sys.executable, "-W", "ignore"]
    with (
        subprocess.Popen(
            [*python, "-c", BARE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as cluster,
        subprocess.Popen(
            [*python, *SCHEDULER, "--dashboard-address", "127.0.0.1:0"], stderr=subprocess.DEVNULL
        ) as idle,
    ):
        try:
            assert cluster.stdout is not None
            yield cluster.stdout.readline().strip(), [cluster.pid, idle.pid]
        finally:
            for process in (cluster, idle):
                process.send_signal(signal.SIGINT)


def main() -> None:
    pairs = pairs_wanted()
    count = int(2 * BUSY_SECONDS / 0.05)
    with project(f"{TWO_WORKERS}adopt: false\n", SCRIPT) as home:
        result = home / "result.json"
        with dask_alone() as (address, pids):
            run = planned(home)
            create(run)
            finish(run, args=(str(result), address, ",".join(map(str, pids)), str(pairs), str(count)))
            delete(run)
        found = json.loads(result.read_text())
    ours, theirs, memory = found["mayfly"], found["bare"], found["memory"]
    keepers = [item["keepers"] for item in ours]
    bare = [item["keepers"] for item in theirs]
    work = median([item["work"] for item in ours])
    table = Table(f"{count} tasks of 50 ms of CPU on 2 workers", pairs=pairs)
    table.value("CPU of the workers", work, "s")
    for index, name in enumerate(("supervisor", "host")):
        table.value(f"CPU of the {name} meanwhile", [1000 * item["each"][index] for item in ours], "ms")
    table.value("CPU of a LocalCluster's process for the same", [1000 * seconds for seconds in bare], "ms")
    share = [100 * more / work for more in differences(keepers, bare)]
    table.bound("sampling and evidence: the difference, of the job's CPU", share, "%", most=2)
    for kind, words in (("rss", "resident"), ("pss", "shared pages divided")):
        sizes = {name: sizes[kind] / 1e6 for name, sizes in memory.items()}
        for name, size in sizes.items():
            table.value(f"memory of {name} ({words})", size, "MB")
        above = sizes["supervisor"] + sizes["host"] - sizes["idle scheduler"]
        table.bound(f"supervisor and host above a bare scheduler ({words})", above, "MB", most=80)


if __name__ == "__main__":
    main()
