"""`python -m scripts.cloud up|down|demo`: Google's cloud as far as Mayfly needs it, on this machine's loopback."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from scripts.cloud import left, local
from scripts.cloud.object_store import ObjectStore
from scripts.cloud.servers import CloudError
from scripts.hadoop.jars import HadoopError

DATA = local.ROOT / "data" / "flights"


def up(args: argparse.Namespace) -> int:
    begun = time.monotonic()
    env = local.up(args.folder, machines=args.machines)
    print(f"the cloud is up after {time.monotonic() - begun:.0f} s; make cloud-down ends it")
    print(f"object store:  {env['STORAGE_EMULATOR_HOST']} (bucket {local.BUCKET})")
    print(f"Dataproc API:  {env['DATAPROC_EMULATOR_HOST']} (gRPC), clusters of {_WORDS[args.machines]}")
    print(f"To use it from this shell: . {_short(args.folder / 'env.sh')}")
    return 0


_WORDS = {
    "nodes": "real nodes: namespaces with Hadoop",
    "none": "processes of this machine: only for launcher processes",
}


def down(args: argparse.Namespace) -> int:
    print("the cloud is down" if local.down(args.folder) else "no cloud was up")
    return 0


def demo(args: argparse.Namespace) -> int:
    """The job `flights` on a cluster of real nodes, by `airflow dags test`; what it leaves. Its exit code."""
    store, emulator = local.running(args.folder)
    assert emulator.pid is not None
    print(f"data:      {_put(store)} on gs://{local.BUCKET}/data/flights")
    before, reports = left.look(emulator.pid), _reports(store)
    print(f"before:    {before}")
    begun = time.monotonic()
    command = ["-m", "mayfly.airflow.dagstest", "flights", "--conf", '{"target": "gcp-demo"}']
    code = subprocess.run([sys.executable, *command], check=False).returncode
    print(f"run:       {time.monotonic() - begun:.0f} s, exit code {code}")
    for name in _reports(store) - reports:
        print(f"report:    {store.url}/{local.BUCKET}/{name}")
    print(f"results:   {', '.join(store.names(local.BUCKET, 'data/results/'))}")
    return code or _shown(before, emulator.pid)


def _shown(before: left.Seen, emulator: int) -> int:
    after = left.look(emulator)
    extra = after.beyond(before)
    print(f"after:     {after}")
    print("left:      " + ("\n           ".join(extra) if extra else "nothing: no node, mount or namespace"))
    return 4 if extra else 0


def _reports(store: ObjectStore) -> set[str]:
    return {name for name in store.names(local.BUCKET, "staging/runs/") if name.endswith("/report.html")}


def _put(store: ObjectStore) -> str:
    """The demo's input, as it is on this machine; what is there already is not sent again."""
    there = store.names(local.BUCKET, "data/flights/")
    files = {f"data/flights/{file.name}": file for file in sorted(DATA.glob("*.csv"))}
    for name in files.keys() - there:
        store.put(local.BUCKET, name, files[name].read_bytes())
    return f"{len(files)} files ({len(files.keys() - there)} sent)"


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.cloud", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "demo"])
    parser.add_argument("--folder", type=Path, default=local.FOLDER)
    parser.add_argument("--machines", choices=["nodes", "none"], default="nodes", help="what clusters are made of")
    args = parser.parse_args()
    try:
        return {"up": up, "down": down, "demo": demo}[args.command](args)
    except (CloudError, HadoopError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
