"""Keeps a worker busy far longer than any test waits, and forks a process that a sloppy kill would forget."""

from __future__ import annotations

import subprocess
import sys
import time

from dask.distributed import Client

if __name__ == "__main__":
    with Client() as client:
        busy = client.submit(time.sleep, 3000)
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3000)"], start_new_session=True):
            print("both are running", flush=True)
            busy.result()
