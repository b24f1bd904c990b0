"""Scripts that would start a cluster of their own get the run's."""

from __future__ import annotations

import pytest

from mayfly.contract import Outcome
from tests.driver.driving import Drive, Driving

EVERY_WAY = """
from dask.distributed import *
import asyncio, os, distributed
import dask.array as da

def where():
    return os.environ.get("MARK")

def mark(client):
    return client.submit(where, pure=False).result()

client = Client(n_workers=4, threads_per_worker=2, memory_limit="1GB")
print("kwargs", mark(client), len(client.scheduler_info()["workers"]))
client.close()

with Client(processes=False) as client:
    print("threads", mark(client))

cluster = LocalCluster(n_workers=3)
client = cluster.get_client()
cluster.scale(10)
client.wait_for_workers(3)
print("cluster", mark(client), isinstance(cluster, LocalCluster), len(cluster.workers), bool(cluster.dashboard_link))
client.restart()
print("restarted", mark(client))
client.shutdown()

with LocalCluster(5) as cluster, Client(cluster) as client:
    cluster.adapt(maximum=9)
    print("with", mark(client), da.ones((10, 10), chunks=5).sum().compute())

class Mine(Client):
    pass

print("subclass", mark(Mine(n_workers=1)), isinstance(Mine(), distributed.Client))

async def main():
    async with Client(asynchronous=True, n_workers=2) as client:
        print("async", await client.submit(where, pure=False))
    async with LocalCluster(asynchronous=True, processes=False) as cluster:
        async with Client(cluster, asynchronous=True) as client:
            print("async cluster", await client.submit(where, pure=False))

asyncio.run(main())
client = Client(os.environ["DASK_SCHEDULER_ADDRESS"])
print("address", mark(client))
client.shutdown()
print("after shutdown", mark(Client()))
"""

TUTORIAL = """
import time
from dask import delayed
from dask.distributed import Client, progress, LocalCluster
import dask.dataframe as dd
import pandas as pd

client = Client(n_workers=4, threads_per_worker=1)

@delayed
def inc(x):
    time.sleep(0.01)
    return x + 1

total = delayed(sum)([inc(i) for i in range(8)])
print("delayed", total.compute())
frame = dd.from_pandas(pd.DataFrame({"a": range(100), "b": [0, 1] * 50}), npartitions=4)
print("frame", frame.groupby("b").a.sum().compute().to_dict())
futures = client.map(lambda x: x ** 2, range(10))
progress(futures)
print("futures", client.submit(sum, futures).result())
client.close()
"""


@pytest.fixture(scope="module")
def adopted(shared_driving: Driving) -> Drive:
    drive = shared_driving.run({"job.py": EVERY_WAY}, minimum=2, env={"MARK": "ours"})
    assert drive.record().outcome is Outcome.SUCCESS, drive.log()
    return drive


@pytest.mark.parametrize(
    "line",
    [
        "kwargs ours 2",
        "threads ours",
        "cluster ours True 2 True",
        "restarted ours",
        "with ours 100.0",
        "subclass ours True",
        "async ours",
        "async cluster ours",
        "address ours",
        "after shutdown ours",
    ],
)
def test_every_way_ends_on_the_runs_workers(adopted: Drive, line: str) -> None:
    assert line in adopted.log().splitlines()


def test_each_adoption_says_one_line(adopted: Drive) -> None:
    lines = [line for line in adopted.log().splitlines() if line.startswith("[mayfly] Client(")]
    assert len(lines) == len(set(lines))
    assert any("n_workers=4" in line and "job.yaml" in line for line in lines)
    for text in (
        "LocalCluster(n_workers=3)",
        "client.shutdown()",
        "client.restart()",
        "cluster.scale(10)",
        "at most 2",
    ):
        assert sum(text in line for line in adopted.log().splitlines() if line.startswith("[mayfly]")) == 1, text


def test_a_restart_by_the_script_is_no_loss(adopted: Drive) -> None:
    assert adopted.record().workers_lost == 0


def test_a_tutorial_without_a_main_guard(driving: Driving) -> None:
    drive = driving.run({"job.py": TUTORIAL}, minimum=2)
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS, drive.log()
    for line in ("delayed 36", "frame {0: 2450, 1: 2500}", "285"):
        assert line in drive.log()
    assert record.tasks.done > 20


def test_adoption_off_leaves_everything_alone_and_chains_to_the_jobs_sitecustomize(driving: Driving) -> None:
    script = """
import sys, os
from dask.distributed import Client, LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        print("class", LocalCluster.__module__, cluster.scheduler_address.split(":")[0])
    try:
        Client(n_workers=2)
    except ValueError as error:
        print("as Dask says:", error)
    with Client() as client:
        print("run", client.scheduler.address == os.environ["DASK_SCHEDULER_ADDRESS"])
    print("theirs", sys.their_sitecustomize)
"""
    drive = driving.run(
        {"job.py": script, "sitecustomize.py": "import sys; sys.their_sitecustomize = __name__"}, adopt=False
    )
    assert drive.record().outcome is Outcome.SUCCESS, drive.log()
    log = drive.log()
    assert "class distributed.deploy.local inproc" in log
    assert "as Dask says: Unexpected keyword arguments" in log
    assert "run True" in log
    assert "theirs sitecustomize" in log
