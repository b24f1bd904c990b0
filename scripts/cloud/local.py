"""The cloud of `make cloud-up`, in `.cloud/`: an object store and the Dataproc emulator, whose nodes are namespaces."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from scripts.cloud import object_store, spark
from scripts.cloud.object_store import ObjectStore
from scripts.cloud.servers import CloudError
from scripts.hadoop import jars
from scripts.hadoop.daemon import Daemon

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cloud"
BUCKET = "mayfly-demo"
_READY_SECONDS = 240.0
_STOP_SECONDS = 240.0
"""Nodes, their daemons and mounts end with the emulator."""


def missing(machines: str) -> list[str]:
    """What this machine lacks, one sentence each."""
    found = [object_store.PROGRAM.missing()]
    if machines == "nodes":
        from tests.emulators.dataproc import nodes

        found += [nodes.missing(), spark.missing()]
    return list(dict.fromkeys(why for why in found if why))


def fetch(machines: str) -> None:
    """Whatever has to be downloaded or built, once, before anything is started."""
    object_store.PROGRAM.built()
    if machines == "nodes":
        from tests.emulators.dataproc.nodes import hadoop

        jars.lib(hadoop.version("2.2"))
        spark.home()


def up(folder: Path, *, machines: str) -> dict[str, str]:
    """Start both; what clients need in their environment. CloudError says what is missing; nothing stays then."""
    if (folder / "pids").exists():
        raise CloudError(f"there is a cloud in {folder} already; make cloud-down ends it.")
    if lacking := missing(machines):
        raise CloudError("\n       ".join(["this machine lacks something for the cloud:", *lacking]))
    fetch(machines)
    try:
        store = object_store.start(folder)
        store.make_bucket(BUCKET)
        env = store.env | {"DATAPROC_EMULATOR_HOST": _emulator(folder, store.env, machines)}
    except BaseException:
        down(folder)
        raise
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in env.items()]
    (folder / "env.sh").write_text("".join(lines))
    (folder / "store.json").write_text(json.dumps({"port": store.port}))
    return env


def _emulator(folder: Path, env: Mapping[str, str], machines: str) -> str:
    """Start it; its address for gRPC."""
    daemon = Daemon("dataproc", folder)
    state = folder / "dataproc"
    state.mkdir()
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    command = ["-m", "tests.emulators.dataproc", "serve", "--state", str(state), "--machines", machines]
    daemon.start([sys.executable, *command], {**os.environ, **env, "PYTHONPATH": path})
    deadline = time.monotonic() + _READY_SECONDS
    while daemon.pid is not None and time.monotonic() < deadline:
        for line in daemon.log.read_text(errors="replace").splitlines():
            if line.startswith("{") and "grpc" in line:
                return f"127.0.0.1:{json.loads(line)['grpc']}"
        time.sleep(0.05)
    raise CloudError(f"the Dataproc emulator did not start:\n{daemon.tail()}")


def down(folder: Path) -> bool:
    """End both, with all their clusters, and remove the folder; whether there was anything."""
    if not folder.exists():
        return False
    for name in ("dataproc", "object-store"):
        Daemon(name, folder).stop(_STOP_SECONDS)
    shutil.rmtree(folder)
    return True


def running(folder: Path) -> tuple[ObjectStore, Daemon]:
    """What `up` has started. CloudError when it does not run (any more)."""
    try:
        store = ObjectStore(folder, json.loads((folder / "store.json").read_text())["port"])
    except (OSError, ValueError, KeyError):
        raise CloudError("no cloud is up here; make cloud-up starts one.") from None
    emulator = Daemon("dataproc", folder)
    for daemon in (store.daemon, emulator):
        if daemon.pid is None:
            raise CloudError(f"{daemon.name} has ended; make cloud-down, then make cloud-up. It said:\n{daemon.tail()}")
    return store, emulator
