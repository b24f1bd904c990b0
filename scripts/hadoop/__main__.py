"""`python -m scripts.hadoop up|down|jars|pin`: the Hadoop of `make yarn-up`, in `.hadoop/`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from . import jars
from .cluster import Hadoop, stop
from .conf import FILESYSTEMS, SCHEDULERS
from .jars import HadoopError

FOLDER = Path(__file__).resolve().parents[2] / ".hadoop"


def up(args: argparse.Namespace) -> None:
    if (args.folder / "pids").exists():
        raise HadoopError(f"there is a Hadoop in {args.folder} already; make yarn-down ends it.")
    jars.lib(args.version)
    begun = time.monotonic()
    hadoop = Hadoop(
        args.folder, args.version, args.scheduler, args.filesystem, args.nodes, args.node_memory_mb, fixed_ports=True
    ).start()
    print(f"Hadoop {args.version} is up after {time.monotonic() - begun:.0f} s; make yarn-down ends it")
    print(f"ResourceManager: {hadoop.rm_url}")
    if "namenode" in hadoop.daemons:
        print(f"NameNode:        http://{hadoop.settings.at('namenode.http')}")
    print("To use it from this shell:")
    values = {**hadoop.env, "PATH": f"{hadoop.folder}/bin"}
    values = {key: shlex.quote(value) + (":$PATH" if key == "PATH" else "") for key, value in values.items()}
    export = "export " + " ".join(f"{key}={value}" for key, value in values.items())
    print(f"  {export}")
    (args.folder / "env.sh").write_text(f"{export}\n")


def down(args: argparse.Namespace) -> None:
    print("Hadoop is down" if stop(args.folder) else "no Hadoop was up")


def pin(args: argparse.Namespace) -> None:
    """Write the checksum file of a version from a fresh download: for a new version, after a look at what came."""
    folder = jars.cache_dir(args.version) / "lib"
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        jars.download(args.version, folder)
    lines = [f"{digest}  {name}\n" for name, digest in jars.checksums(folder).items()]
    (jars.HERE / f"{args.version}.sha256").write_text("".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.hadoop", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "jars", "pin"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--version", default=jars.DEFAULT_VERSION)
    parser.add_argument("--scheduler", choices=SCHEDULERS, default="capacity")
    parser.add_argument("--filesystem", choices=FILESYSTEMS, default="hdfs")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--node-memory-mb", type=int, default=6144, help="of each node; virtual, nothing reserves it")
    args = parser.parse_args()
    try:
        {"up": up, "down": down, "jars": lambda args: jars.lib(args.version), "pin": pin}[args.command](args)
    except HadoopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
