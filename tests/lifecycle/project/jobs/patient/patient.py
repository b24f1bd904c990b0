"""Prints a line now and then until it is told to go; leaves a mark for each time it ran. Argument: folder of marks."""

from __future__ import annotations

import os
import sys
import time
import uuid
from itertools import count
from pathlib import Path

from dask.distributed import Client

if __name__ == "__main__":
    folder = Path(sys.argv[1], os.environ["MAYFLY_CLUSTER"])
    with Client() as client:
        assert client.submit(sum, [1, 2, 3]).result() == 6
        for number in count(1):
            print(f"still here: {number}", flush=True)
            if Path(sys.argv[1], f"go-{folder.name}").exists():
                break
            time.sleep(1.0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / uuid.uuid4().hex).touch()
