"""A staging folder on a disk that is really full: a small tmpfs in a mount namespace of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import FileStore
from tests.processes import of_cluster

from .conftest import Cli

FILLS = """
import os, sys, time
from dask.distributed import Client
mark, filler = sys.argv[1:]
if __name__ == "__main__":
    client = Client()
    with open(filler, "wb", buffering=0) as file:
        for _ in range(15):  # for 3 s: what was just being replaced gives room back once
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                print("full:", error.errno, flush=True)
            time.sleep(0.2)
    with open(mark, "w") as file:
        file.write(str(client.submit(sum, [1, 2]).result()))
"""
UNSHARE = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
SCENE = """
set -u
staging=$1 out=$2; shift 2
mount -t tmpfs -o size=6m tmpfs "$staging" || exit 99
"$@" run fills >"$out/run.txt" 2>&1 & orchestrator=$!
while kill -0 $orchestrator && ! [ -s "$out/mark" ]; do sleep 0.2; done
kill -9 $orchestrator  # it would try again for minutes; who deletes is somebody else
name=$(ls "$staging/runs")
"$@" delete "$name" >"$out/full.txt" 2>&1; echo $? >"$out/full.code"
ps ax -o args= | grep -c "[m]ayfly.driver.*$name" >"$out/drivers"
cp -r "$staging/runs" "$out/while-full"
rm "$staging/filler"
"$@" delete "$name" >"$out/delete.txt" 2>&1; echo $? >"$out/delete.code"
cp -r "$staging/runs" "$out/runs"
"""


def may_mount() -> bool:
    try:
        done = subprocess.run(
            [*UNSHARE, "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False, timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="needs unshare, and leave to mount a tmpfs in a namespace")
def test_a_full_disk_costs_evidence_and_neither_the_job_nor_the_deletion(cli: Cli, tmp_path: Path) -> None:
    staging, out = cli.home / ".mayfly/staging", tmp_path / "out"
    for folder in (staging, out):
        folder.mkdir(parents=True)
    arguments = json.dumps([str(out / "mark"), str(staging / "filler")])
    cli.add_job("fills", FILLS, f"args: {arguments}\n")
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", SCENE, "sh", str(staging), str(out), sys.executable, "-m", "mayfly"],
        env=cli.environment,
        cwd=cli.home,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    def said(name: str) -> str:
        path = out / name
        return path.read_text() if path.exists() else f"no {name}: {done.stdout}{done.stderr}"

    assert said("mark") == "3", said("run.txt")
    (name,) = (path.name for path in (out / "runs").iterdir())
    assert said("full.code").strip() == "3", said("full.txt")
    assert "No space left" in said("full.txt")
    assert said("drivers").strip() == "0", "the cluster has ended all the same"
    assert not (out / "while-full" / name / "closing.json").exists()
    assert said("delete.code").strip() == "0", said("delete.txt")
    rundir = RunDir(FileStore(out), name)
    assert rundir.receipt() is not None
    assert of_cluster(name) == []
