"""A node is decommissioned gracefully while its worker holds 100 MB of results: how long until Dask has moved them and
the worker is gone? The job's results must all be there afterwards, and none may have been computed anew."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from common.on_yarn import hadoop, launched
from common.pairs import Table, pairs_wanted

PIECES, PIECE = 20, 5 * 10**6
TARGET_NODE = 2


def fill(number: int) -> bytes:
    return bytes([number % 256]) * PIECE


async def measure(cluster: Any, cluster_of_nodes: Any, pairs: int) -> list[float]:
    from distributed import Client

    found = []
    async with Client(cluster, asynchronous=True) as client:
        for _ in range(pairs):
            leaving = await _on_the_node(cluster, cluster_of_nodes)
            others = [address for address in cluster.scheduler.workers if address not in leaving]
            results = client.map(fill, range(PIECES), workers=[leaving[0]], pure=False, allow_other_workers=True)
            await client.gather(results[0])
            await asyncio.sleep(0.5)
            began = time.perf_counter()
            await asyncio.to_thread(cluster_of_nodes.decommission, TARGET_NODE, True, 120)
            while any(address in cluster.scheduler.workers for address in leaving):
                await asyncio.sleep(0.05)
            found.append(time.perf_counter() - began)
            sizes = [len(part) for part in await client.gather(results)]
            assert sizes == [PIECE] * PIECES, "results were lost"
            assert others
            del results
            await asyncio.to_thread(cluster_of_nodes.recommission, TARGET_NODE)
            print(".", end="", file=sys.stderr, flush=True)
    return found


async def _on_the_node(cluster: Any, nodes: Any) -> list[str]:
    """Addresses of the workers on the node that will go; asks for more workers until there is one."""
    for count in range(2, 9):
        cluster.scale(max(count, len(cluster.worker_spec)))
        while len(cluster.scheduler.workers) < len(cluster.worker_spec):
            await asyncio.sleep(0.1)
        pids = set(await asyncio.to_thread(nodes._containers_of, TARGET_NODE))
        found = [address for address, pid in (await _pids(cluster)).items() if pid in pids]
        if found:
            return found
    raise RuntimeError("YARN put no worker on the node")


async def _pids(cluster: Any) -> dict[str, int]:
    """Of the nannies: a worker's title overwrites its environment, by which its container is known."""
    from distributed import Client

    async with Client(cluster, asynchronous=True, set_as_default=False) as client:
        return dict(await client.run(os.getppid))


def main() -> None:
    pairs = min(3, pairs_wanted())  # each takes a node out and in, half a minute

    async def all_of_it(nodes: Any) -> list[float]:
        async with launched(minimum=2) as cluster:
            return await measure(cluster, nodes, pairs)

    with hadoop() as nodes:
        found = asyncio.run(all_of_it(nodes))
    table = Table(f"graceful decommission of a node with {PIECES * PIECE / 1e6:.0f} MB of results", pairs=pairs)
    table.bound("from the command to the last worker's leave; no result lost", found, "s", most=10)


if __name__ == "__main__":
    main()
