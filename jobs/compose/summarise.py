"""Read what prepare.py wrote and write summary.json beside it. Argument: folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dask.distributed import Client


def total(path: str) -> tuple[int, int]:
    numbers = [int(line) for line in Path(path).read_text().split()]
    return len(numbers), sum(numbers)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with Client() as client:
        parts = client.gather(client.map(total, [str(path) for path in sorted(folder.glob("part-*.txt"))]))
    count, whole = sum(part[0] for part in parts), sum(part[1] for part in parts)
    (folder / "summary.json").write_text(json.dumps({"count": count, "mean": whole / count}) + "\n")
    print(f"mean of {count} numbers: {whole / count:.3f}")
