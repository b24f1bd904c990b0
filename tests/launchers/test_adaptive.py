from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
from distributed import Client, LocalCluster

from mayfly.driver.launchers.adaptive import Adaptive, shuffling


def slowly(part: Any) -> Any:
    time.sleep(0.2)
    return part


def test_no_worker_is_given_back_during_a_p2p_shuffle() -> None:
    async def work() -> None:
        async with (
            LocalCluster(n_workers=2, processes=False, dashboard_address=":0", asynchronous=True) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            adaptive = cluster.adapt(Adaptive=Adaptive, minimum=1, maximum=2, interval="1h")
            assert await adaptive.workers_to_close(target=1)
            frame = dd.from_pandas(pd.DataFrame({"a": range(400), "b": range(400)}), npartitions=8)
            with dask.config.set({"dataframe.shuffle.method": "p2p"}):
                result = client.compute(frame.map_partitions(slowly).shuffle("a").map_partitions(slowly).b.sum())
            while not shuffling(cluster.scheduler):
                assert not result.done(), "no P2P shuffle was seen"
                await asyncio.sleep(0.01)
            assert await adaptive.workers_to_close(target=1) == []
            assert await result == sum(range(400))
            while shuffling(cluster.scheduler):
                await asyncio.sleep(0.05)
            assert await adaptive.workers_to_close(target=1)

    asyncio.run(work())


def test_processes_need_nothing_of_yarn() -> None:
    code = (
        "import sys; from mayfly.driver.launchers.base import open_launcher; open_launcher('processes'); "
        "print([name for name in ('skein', 'grpc', 'mayfly.driver.launchers.yarn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
