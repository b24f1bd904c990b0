"""A Hadoop for benchmarks, runs on it, and the launcher alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil

from mayfly.contract import JobOrder, Limits, Timestamp, WorkersPlan, YarnPlan
from scripts.hadoop import Hadoop

os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
# The interpreter of this machine on all nodes, which are this machine: what is packed is measured by environment.py.
TARGETS = f"""
targets:
  edge:
    backend: local
    launcher: yarn
    staging: .mayfly/staging
    python: {json.dumps(sys.executable)}
    yarn: {{fast_heartbeat: true}}
"""
JOB = "target: edge\ntargets: [edge]\nretries: 0\ncluster: {workers: 2, worker: {cores: 1, memory: 600 MB}}\n"
WORKER_MEMORY = 600 * 2**20


SCHEDULER = """
import asyncio, sys
from distributed import Scheduler

async def main():
    async with Scheduler(protocol="tcp://", host="127.0.0.1", port=0, dashboard=False) as scheduler:
        print(scheduler.address, flush=True)
        while not scheduler.workers:
            await asyncio.sleep(0.01)
        print("there", flush=True)

asyncio.run(main())
"""


@contextmanager
def hadoop(*, nodes: int = 2) -> Iterator[Hadoop]:
    """Its client settings are this process's environment meanwhile."""
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as folder:
        print("starting Hadoop ...", file=sys.stderr, flush=True)
        with Hadoop(Path(folder) / "hadoop", nodes=nodes, node_memory_mb=8192, node_vcores=16) as cluster:
            before = dict(os.environ)
            os.environ |= cluster.env
            try:
                yield cluster
            finally:
                os.environ.clear()
                os.environ |= before


@asynccontextmanager
async def launched(*, minimum: int) -> AsyncIterator[Any]:
    """Dask's cluster object of the launcher, in this process, as the host has it; `minimum` small workers are ready."""
    from mayfly.driver import environment
    from mayfly.driver.launchers.base import Launch
    from mayfly.driver.launchers.yarn import launch
    from mayfly.driver.outputs import WorkerVoices
    from mayfly.driver.tls import make_security

    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:
        folder = Path(scratch)
        (folder / "job").mkdir()
        order = JobOrder(
            cluster=f"bench-{time.monotonic_ns()}",
            owner="bench",
            job="run_job",
            attempt=1,
            script="bench.py",
            launcher="yarn",
            workers=WorkersPlan(minimum=minimum, maximum=minimum, cores=1, memory=WORKER_MEMORY),
            limits=Limits(start=300, job=3600, stall=0),
            code="code/none.zip",
            yarn=YarnPlan(fast_heartbeat=True, grace=15.0),
            lease_ttl=3600.0,
            expires_at=Timestamp(time.time() + 3600),
            at=Timestamp(time.time()),
        )
        environment.write_dask_settings(order, folder / "dask.yaml")
        order_launch = Launch(order=order, folder=folder, job=folder / "job", security=make_security(folder))
        async with launch(order_launch) as cluster:
            WorkerVoices(cluster.scheduler, folder=folder / "logs", tell=lambda *_, **__: None, drain=_nothing)
            await ready(cluster, minimum)
            yield cluster


async def ready(cluster: Any, count: int) -> None:
    """Until exactly so many workers are there."""
    while len(cluster.scheduler.workers) != count:
        await asyncio.sleep(0.02)


async def _nothing() -> None:
    pass


def worker_by_hand() -> float:
    """Seconds from `dask worker` to its registration with a scheduler that is there."""
    scheduler = subprocess.Popen([sys.executable, "-c", SCHEDULER], stdout=subprocess.PIPE, text=True)
    assert scheduler.stdout is not None
    address = scheduler.stdout.readline().strip()
    began = time.perf_counter()
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        scheduler.stdout.readline()
        return time.perf_counter() - began
    finally:
        everybody = [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]
        for process in everybody:
            process.kill()
        psutil.wait_procs(everybody, timeout=10)
        scheduler.kill()
        scheduler.wait()
