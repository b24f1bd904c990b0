"""Write eight files of random numbers. Arguments: folder, seed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from dask.distributed import Client

FILES = 8
NUMBERS = 10_000


def write(number: int, folder: str, seed: int) -> int:
    source = random.Random(f"{seed}/{number}")  # the same numbers when a task runs twice
    text = "\n".join(str(source.randint(0, 999)) for _ in range(NUMBERS))
    Path(folder, f"part-{number}.txt").write_text(text + "\n")
    return NUMBERS


if __name__ == "__main__":
    folder, seed = sys.argv[1], int(sys.argv[2])
    Path(folder).mkdir(parents=True, exist_ok=True)
    with Client() as client:
        written = sum(client.gather(client.map(write, range(FILES), folder=folder, seed=seed)))
    print(f"{written} numbers in {folder}, seed {seed}")
