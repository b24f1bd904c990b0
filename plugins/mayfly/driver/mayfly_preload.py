"""Loaded by every Dask worker, first or late: sets `env:`, the path and the working folder, and catches its output.

One file of its own (Dask copies it), so it imports nothing of Mayfly. Its settings are in the JSON file named by
MAYFLY_WORKER_FILE: never in the environment itself, since some launchers expand `$()` there.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from typing import Any


def _settings() -> dict[str, Any]:
    path = os.environ.get("MAYFLY_WORKER_FILE")
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:
        settings: dict[str, Any] = json.load(file)
    return settings


def quiet_dask() -> None:
    """Dask's chatter below WARNING goes to its own logs (kept at the end), not into the job's log; unless the job has
    set `logging.distributed` in its Dask settings."""
    import dask

    if "distributed" not in dask.config.get("logging", {}):
        for handler in logging.getLogger("distributed").handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.WARNING)


_SETTINGS = _settings()
os.environ.update(_SETTINGS.get("env", {}))
if folder := _SETTINGS.get("folder"):
    os.chdir(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)


if _SETTINGS:
    quiet_dask()


def dask_setup(worker: Any) -> None:
    """Output of this process, also of C code and of children, goes to the supervisor as `[worker 3] ...`.

    A socket and not a pipe of our own: what was written before a sudden death is still read. A launcher whose workers
    are on other machines leaves `output` out; their output is kept by what started them."""
    address = _SETTINGS.get("output")
    if not address:
        return
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if len(os.fsencode(address)) > 100:  # the kernel allows 108 bytes: a long path by a short name
        folder = os.open(os.path.dirname(address), os.O_RDONLY | os.O_DIRECTORY)
        line.connect(f"/proc/self/fd/{folder}/{os.path.basename(address)}")
        os.close(folder)
    else:
        line.connect(address)
    line.sendall(f"worker {worker.name}\n".encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(line.fileno(), 1)
    os.dup2(line.fileno(), 2)
    line.close()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(line_buffering=True, errors="backslashreplace")
