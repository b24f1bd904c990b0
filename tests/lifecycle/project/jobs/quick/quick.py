"""One task on the cluster; leaves a mark for each time it ran. Argument: folder of marks."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

from dask.distributed import Client

if __name__ == "__main__":
    with Client() as client:
        assert client.submit(sum, [1, 2, 3]).result() == 6
    marks = Path(sys.argv[1], os.environ["MAYFLY_CLUSTER"])
    marks.mkdir(parents=True, exist_ok=True)
    (marks / uuid.uuid4().hex).touch()
