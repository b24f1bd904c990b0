"""The packed environment against `pip install` of the same lock: on a node, and what a second start transfers.

pip gets its packages from the package index, or from its cache when it has them: the second time is what is compared,
which is pip's better one. A node of a cloud has neither cache nor, mostly, a way to the index.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common.pairs import Table, pairs_wanted, ratios

from mayfly.environments.archive import unpack
from mayfly.environments.packing import archive_of, build, envs_folder
from mayfly.environments.sources import read_lock, source_of
from mayfly.environments.staging import look, upload
from mayfly.project.loading import Project
from mayfly.staging.stores import open_store

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    pairs = min(3, pairs_wanted())  # each installs some 40 packages
    source = source_of(ROOT, "flights")
    locked = read_lock(source)
    assert locked is not None, f"no lock beside {source.shown}: mayfly env build"
    began = time.perf_counter()
    folder = envs_folder(ROOT)
    built, fresh = build(locked, requirements=source.shown, folder=folder, say=print)
    packing = time.perf_counter() - began
    archive = archive_of(folder, locked.key)
    found: dict[str, list[float]] = {"unpack": [], "pip": []}
    uploads = []
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:
        store = open_store(f"file://{scratch}/staging")
        target = Project(ROOT).frozen_target("edge")
        for _ in range(2):
            staged = look(job="flights", target=target, home=ROOT, store=store)
            assert staged is not None
            uploads.append(0 if staged.local is None else built.bytes)
            upload(staged, store=store)
        for number in range(-1, pairs):  # the first round fills pip's cache and the page cache
            for name in sorted(found, reverse=number % 2 == 0):
                place = Path(scratch) / f"{name}-{number}"
                began = time.perf_counter()
                if name == "unpack":
                    with archive.open("rb") as file:
                        unpack(file, place, sha256=built.sha256)
                else:
                    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
                    pip = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
                    subprocess.run([*pip, "--require-hashes", "-r", str(source.lock)], check=True)
                if number >= 0:
                    found[name].append(time.perf_counter() - began)
            print(".", end="", file=sys.stderr, flush=True)
    table = Table(f"environment of {source.shown}: {built.bytes / 1e6:.0f} MB packed", pairs=pairs)
    if fresh:
        table.value("lock -> archive", packing, "s")
    table.value("unpack on a node, checksum verified", found["unpack"], "s")
    table.value("venv + pip install of the same lock, from pip's cache", found["pip"], "s")
    table.bound("pip / unpack", ratios(found["pip"], found["unpack"]), "x", least=3)
    table.value("first start uploads", uploads[0] / 1e6, "MB")
    table.bound("second start uploads", float(uploads[1]), "B", most=0)


if __name__ == "__main__":
    main()
