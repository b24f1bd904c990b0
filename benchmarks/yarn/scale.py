"""From 2 workers to 8 against from 2 to 3: containers are asked for at once, so that six cost little more than one."""

from __future__ import annotations

import asyncio
import sys
import time

from common.on_yarn import hadoop, launched, ready
from common.pairs import Table, pairs_wanted, ratios


async def measure(pairs: int) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {3: [], 8: []}
    async with launched(minimum=2) as cluster:
        for number in range(-1, pairs):  # the first round warms up
            for count in sorted(found, reverse=number % 2 == 0):
                began = time.perf_counter()
                cluster.scale(count)
                await ready(cluster, count)
                if number >= 0:
                    found[count].append(time.perf_counter() - began)
                cluster.scale(2)
                await ready(cluster, 2)
                await asyncio.sleep(1.0)  # the processes of those that left shall be gone, too
            print(".", end="", file=sys.stderr, flush=True)
    return found


def main() -> None:
    pairs = pairs_wanted()
    with hadoop():
        found = asyncio.run(measure(pairs))
    table = Table("more workers on YARN (1 core, 600 MiB each)", pairs=pairs)
    table.value("2 -> 3", found[3], "s")
    table.value("2 -> 8", found[8], "s")
    table.bound("(2 -> 8) / (2 -> 3)", ratios(found[8], found[3]), "x", most=1.5)


if __name__ == "__main__":
    main()
