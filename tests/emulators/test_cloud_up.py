"""`make cloud-up` and `make cloud-down`, without nodes; `make demo-cloud` has those."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.backends.dataproc import DataprocBackend
from mayfly.names import MANAGED_BY
from mayfly.project.loading import Project
from mayfly.staging.gcs import GcsStore
from scripts.cloud import left, local, object_store
from scripts.cloud.servers import CloudError
from scripts.hadoop.daemon import started

HAS_A_CHILD = """
import subprocess, sys
sys.stdin.readline()
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
sys.stdin.readline()
child.kill()
child.wait()
print("ended", flush=True)
sys.stdin.read()
"""
pytestmark = pytest.mark.timeout(900)  # each command has 280 s


@pytest.fixture
def folder(object_store_program: Path, tmp_path: Path) -> Path:
    if why := local.missing("none"):
        pytest.skip("; ".join(why))
    return tmp_path / "cloud"


def cloud(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.cloud", command, "--folder", str(folder), "--machines", "none"],
        cwd=local.ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_up_and_down(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cloud("up", folder)
    assert made.returncode == 0, made.stderr
    try:
        store, emulator = local.running(folder)
        pids = [store.daemon.pid, emulator.pid]
        assert all(pids)
        for line in (folder / "env.sh").read_text().splitlines():
            monkeypatch.setenv(*line.removeprefix("export ").split("=", 1))
        assert GcsStore(f"gs://{local.BUCKET}/staging").create("a", b"1")
        assert DataprocBackend(Project(local.ROOT).frozen_target("gcp-demo")).find(MANAGED_BY) == []
        again = cloud("up", folder)
        assert (again.returncode, "there is a cloud in" in again.stderr) == (1, True)
    finally:
        ended = cloud("down", folder)
    assert ended.stdout == "the cloud is down\n"
    assert not folder.exists()
    assert not [pid for pid in pids if pid and started(pid)]
    assert cloud("down", folder).stdout == "no cloud was up\n"
    assert "make cloud-up starts one" in cloud("demo", folder).stderr


def test_what_is_missing_is_said_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(CloudError) as refused:
        local.up(tmp_path / "cloud", machines="nodes")
    said = str(refused.value)
    assert "no `go` on the PATH" in said and ("only root may make them" in said or "Nodes need" in said)
    assert "JDK" in said
    assert not (tmp_path / "cloud").exists()


def test_a_start_that_fails_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cache" / "mayfly" / "bin" / object_store.PROGRAM.path.name
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\necho 'it is broken' >&2\nexit 1\n")
    broken.chmod(0o755)
    done = cloud("up", folder, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert (done.returncode, "it is broken" in done.stderr) == (1, True)
    assert not folder.exists()


def test_a_process_in_namespaces_of_its_own_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HAS_A_CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        before = left.look(parent.pid)
        parent.stdin.write("start\n")
        child = int(parent.stdout.readline())
        assert f"process {child}" in left.look(parent.pid).beyond(before)
        parent.stdin.write("end\n")
        assert parent.stdout.readline() == "ended\n"
        # Mounts and links are the machine's, and others are at work on it.
        after = replace(left.look(parent.pid), mounts=before.mounts, links=before.links)
        assert after.beyond(before) == []


def test_a_free_port_is_not_somebody_elses(object_store_program: Path, tmp_path: Path) -> None:
    with object_store.start(tmp_path / "a") as one, object_store.start(tmp_path / "b") as other:
        assert one.port != other.port
