"""Workers as processes of this machine, by Dask's own LocalCluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from distributed import LocalCluster

from mayfly.driver.launchers.adaptive import Adaptive
from mayfly.driver.launchers.base import Launch
from mayfly.driver.node import gateway_port


@asynccontextmanager
async def launch(launch: Launch) -> AsyncIterator[Any]:
    """See `base`. Workers inherit this process's environment (path, `env:`, Dask settings) and run on loopback."""
    workers = launch.workers
    cluster = LocalCluster(
        n_workers=max(1, workers.minimum),
        threads_per_worker=workers.cores,
        memory_limit=workers.memory,
        processes=True,
        protocol="tls://",
        host="127.0.0.1",
        security=launch.security,
        dashboard_address=f"127.0.0.1:{gateway_port()}",
        local_directory=str(launch.folder / "dask"),
        preload=[str(launch.preload)],
        silence_logs=False,
        asynchronous=True,
    )
    async with cluster:
        if workers.adaptive:
            cluster.adapt(Adaptive=Adaptive, minimum=workers.minimum, maximum=workers.maximum)
        yield cluster
