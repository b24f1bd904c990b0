"""Leaves a mark when it begins and one when it ends. Arguments: folder of marks, what to do.

quick: nothing; wrong: fail; hold: wait until told to go; task: the same in a task on a worker.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path

MOST_SECONDS = 1500.0


def hold(go: str) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while not Path(go).exists() and time.monotonic() < deadline:
        time.sleep(0.5)


if __name__ == "__main__":
    folder, what = Path(sys.argv[1], os.environ["MAYFLY_CLUSTER"]), sys.argv[2]
    go = str(Path(sys.argv[1], f"go-{folder.name}"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"began-{uuid.uuid4().hex}").touch()
    if what == "wrong":
        raise SystemExit("wrong, as it was told")
    if what == "hold":
        hold(go)
    elif what == "task":
        from dask.distributed import Client

        with Client() as client:
            client.submit(hold, go).result()
    (folder / f"ended-{uuid.uuid4().hex}").touch()
