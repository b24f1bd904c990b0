"""`python -m tests.emulators.dataproc serve --state DIR`: see README.md."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, get_type_hints

from tests.emulators.dataproc import httpserver, lives, scaler
from tests.emulators.dataproc.grpcserver import serve
from tests.emulators.dataproc.machines import Machines, NoMachines
from tests.emulators.dataproc.objects import Objects
from tests.emulators.dataproc.service import Service
from tests.emulators.dataproc.world import Settings, World


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.emulators.dataproc", description=__doc__)
    command = parser.add_subparsers(dest="command", required=True).add_parser("serve", help="until SIGTERM")
    command.add_argument("--state", type=Path, required=True, help="folder for what clusters and jobs write")
    command.add_argument("--machines", choices=("none", "nodes"), default="none")
    command.add_argument("--port", type=int, default=0, help="of gRPC; 0 = a free one")
    command.add_argument("--rest-port", type=int, default=0, help="of REST and the control API; 0 = a free one")
    command.add_argument("--node-options", default="{}", metavar="JSON", help="of --machines nodes: see README.md")
    command.add_argument("--until-eof", action="store_true", help="end when stdin ends, too")
    for field in dataclasses.fields(Settings):
        kind = get_type_hints(Settings)[field.name]
        if kind in (int, float):
            command.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default, metavar="N")
    given = parser.parse_args()

    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    given.state.mkdir(parents=True, exist_ok=True)
    objects = Objects(given.state / "buckets")
    settings = Settings(
        **{f.name: getattr(given, f.name) for f in dataclasses.fields(Settings) if hasattr(given, f.name)}
    )
    world = World(folder=given.state, machines=_machines(given, objects), objects=objects, settings=settings)
    service = Service(world)
    server, port = serve(service, given.port)
    rest = httpserver.serve(service, given.rest_port)
    for watch in (lives.watch, scaler.watch):
        threading.Thread(target=watch, args=(world,), daemon=True).start()
    if given.until_eof:
        threading.Thread(target=_wait_for_eof, args=(over,), daemon=True).start()
    print(json.dumps({"grpc": port, "rest": rest.server_port, "pid": os.getpid()}), flush=True)
    over.wait()
    world.closing.set()
    with world.lock:
        for entry in world.clusters.values():
            entry.cancelled.set()
    server.stop(0)
    world.machines.close()
    os._exit(0)


def _wait_for_eof(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _machines(given: Any, objects: Objects) -> Machines:
    if given.machines == "none":
        return NoMachines(given.state, objects)
    from scripts.cloud import spark
    from tests.emulators.dataproc.nodes import Bind, NodeMachines, Options, missing

    if why := missing() or spark.missing():
        sys.exit(f"error: --machines nodes: {why}")
    chosen = json.loads(given.node_options)
    chosen["binds"] = [Bind(source=Path(bind["source"]), **_rest(bind, "source")) for bind in chosen.get("binds", ())]
    for name in ("spark", "hidden"):
        if name in chosen:
            value = chosen[name]
            chosen[name] = Path(value) if isinstance(value, str) else [Path(each) for each in value]
    chosen.setdefault("spark", spark.home())
    return NodeMachines(given.state, objects, Options(**chosen))


def _rest(values: dict[str, Any], without: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != without}


if __name__ == "__main__":
    main()
