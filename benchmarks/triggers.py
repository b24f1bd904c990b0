"""1,000 deferred jobs in one event loop: how late the loop comes, as a triggerer's own watchdog would see it.

    python benchmarks/triggers.py [--triggers 1000] [--seconds 30]

Each trigger watches a run directory of its own on this disk; another process writes heartbeats and log segments into
all of them. Measured in one run: the empty loop, 1,000 triggers at the start of their wait (a look every 5 s each) and
1,000 in its steady state (30 s), once each: there are no pairs, so that the number that `make bench` gives all files
means nothing here. Not measured: what Airflow's triggerer itself does beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import airflow_home  # before anything of Airflow

from mayfly.airflow.triggers import JobTrigger
from mayfly.contract import FrozenTarget, JobOrder, Lease, Limits, Phase, Status, Tasks, Timestamp, WorkersPlan
from mayfly.staging.rundir import AttemptDir, RunDir
from mayfly.staging.stores import FileStore
from mayfly.steps.lifecycle import Handle

TICK = 0.1
ROUND = 15.0
"""Seconds in which every run gets a heartbeat and a log segment."""
BY = "benchmark"
LIMIT = 0.2


def attempts(folder: Path, count: int) -> list[AttemptDir]:
    store = FileStore(folder)
    found = [RunDir(store, f"mayfly-bench-{number:010x}").attempt("run_job", 1) for number in range(count)]
    now = Timestamp(time.time())
    for each in found:
        order = JobOrder(
            cluster=each.rundir.name,
            owner="0" * 16,
            job="run_job",
            attempt=1,
            script="bench.py",
            workers=WorkersPlan(minimum=2, maximum=2, cores=1, memory=4 * 10**9),
            limits=Limits(start=1800.0, job=21600.0, stall=1800.0),
            code="code/bench.zip",
            lease_ttl=600.0,
            expires_at=Timestamp(now + 86400),
            at=now,
        )
        each.put("job.json", order)
        each.put("lease.json", Lease(seq=1, writer=BY, ttl_s=600.0))
    return found


def drive(folder: str, count: int) -> None:
    """What 1,000 drivers would do, slower: this machine has to hold them beside the triggerer."""
    mine = [RunDir(FileStore(folder), f"mayfly-bench-{number:010x}").attempt("run_job", 1) for number in range(count)]
    number = 0
    while True:
        began = time.monotonic()
        for index, each in enumerate(mine):
            each.put(
                "status.json",
                Status(
                    seq=number,
                    at=Timestamp(time.time()),
                    phase=Phase.RUN,
                    elapsed=number * ROUND,
                    tasks=Tasks(done=number * 10, running=2),
                ),
            )
            each.store.put(f"{each.path}/log/{number:06d}.txt", f"round {number}: a line of output\n".encode() * 3)
            wait = began + ROUND * (index + 1) / len(mine) - time.monotonic()
            if wait > 0:
                time.sleep(wait)
        number += 1


async def lags(seconds: float) -> list[float]:
    """How much later than asked the loop came back."""
    found, end = [], time.monotonic() + seconds
    while (before := time.monotonic()) < end:
        await asyncio.sleep(TICK)
        found.append(time.monotonic() - before - TICK)
    return found


async def measure(triggers: Sequence[JobTrigger], seconds: float) -> tuple[list[float], float, int]:
    """Lags, CPU (in cores), and how many triggers were still waiting at the end."""

    async def wait(trigger: JobTrigger) -> None:
        async for _ in trigger.run():
            pass

    tasks = [asyncio.create_task(wait(trigger)) for trigger in triggers]
    await asyncio.sleep(1.0)
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = await lags(seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    waiting = sum(not task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found, cpu / seconds, waiting


def quiet() -> logging.Logger:
    log = logging.getLogger("benchmark")
    log.addHandler(logging.FileHandler("/dev/null"))
    log.propagate = False
    log.setLevel(logging.INFO)
    return log


def main() -> int:
    asked = argparse.ArgumentParser()
    asked.add_argument("pairs", nargs="?", help="not used")
    asked.add_argument("--triggers", type=int, default=1000)
    asked.add_argument("--seconds", type=float, default=30.0)
    given = asked.parse_args()
    count, seconds = given.triggers, given.seconds
    log, worst = quiet(), 0.0
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as folder:
        found = attempts(Path(folder), count)
        drivers = multiprocessing.get_context("fork").Process(target=drive, args=(folder, count), daemon=True)
        drivers.start()
        try:
            print(f"Airflow {airflow_home.version()}, {count} triggers, {seconds:.0f} s each")
            print(f"{'':34}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}   {'CPU':>10}  looks/s")
            for name, age, number in (
                ("empty loop", 0.0, 0),
                ("start (5 s)", 0.0, count),
                ("steady (30 s)", 3600.0, count),
            ):
                target = FrozenTarget(name="local", backend="local", launcher="processes", staging=f"file://{folder}")
                made = [
                    JobTrigger(
                        handle=Handle(name=each.rundir.name, target=target).to_json(),
                        job="run_job",
                        attempt=1,
                        by=BY,
                        since=time.time() - age,
                    )
                    for each in found[:number]
                ]
                for trigger in made:
                    trigger._log = log
                leases = sum(lease.seq for each in found if (lease := each.lease()))
                late, cpu, waiting = asyncio.run(measure(made, seconds))
                looks = (sum(lease.seq for each in found if (lease := each.lease())) - leases) / seconds
                late.sort()
                p50, p95, p99 = (late[min(len(late) - 1, int(len(late) * q))] for q in (0.5, 0.95, 0.99))
                row = "".join(f"{1000 * value:6.1f}ms" for value in (p50, p95, p99, late[-1]))
                print(f"{name:34}{row}   {cpu:5.2f} core  {looks:7.1f}   {waiting} of {number} still wait", flush=True)
                worst = max(worst, p99)
        finally:
            drivers.kill()
            drivers.join()
    print(f"wanted: p99 <= {LIMIT} s; found {worst:.3f} s: {'ok' if worst <= LIMIT else 'MISSED'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
