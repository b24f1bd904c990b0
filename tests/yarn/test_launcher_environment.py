"""The packed environment on its way to the nodes: brought once, checked, and brought anew when it is damaged."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mayfly.contract import Environment, FailureClass, Limits, Outcome, YarnPlan
from mayfly.driver.launchers.base import LaunchError
from mayfly.driver.launchers.yarn_environment import bring, place_of
from mayfly.staging.rundir import AttemptDir
from mayfly.staging.stores import FileStore
from scripts.hadoop import Hadoop
from tests.driver.driving import PATIENCE, Drive, Driving
from tests.yarn.fixtures import GRACE

pytestmark = pytest.mark.timeout(1800)

SCRIPT = """
import os
from dask.distributed import Client
print("PACK", set(Client().run(lambda: os.environ.get("OF_THE_PACK")).values()), flush=True)
"""


def pack() -> tuple[Environment, bytes]:
    """An archive as `mayfly env build` makes them, but its interpreter leads to this one."""
    data = io.BytesIO()
    program = f'#!/bin/bash\nexport OF_THE_PACK=1\nexec "{sys.executable}" "$@"\n'.encode()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        entry = tarfile.TarInfo("bin/python3")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    content = data.getvalue()
    version = "{}.{}.{}".format(*sys.version_info[:3])
    digest = hashlib.sha256(content).hexdigest()
    return Environment(path="envs/abc.tar.gz", sha256=digest, bytes=len(content), python=version), content


def run(driving: Driving, hadoop: Hadoop, environment: Environment, content: bytes) -> Drive:
    def stage(attempt: AttemptDir) -> None:
        attempt.store.put(environment.path, content)

    order: dict[str, Any] = {"environment": hadoop.env, "before": stage, "launcher": "yarn", "memory": 512 << 20}
    plan = YarnPlan(fast_heartbeat=True, grace=GRACE)
    limits = Limits(start=600, job=600, stall=0)
    drive = driving.start({"job.py": SCRIPT}, pack=environment, yarn=plan, limits=limits, **order)
    drive.record(timeout=limits.start + limits.job + PATIENCE)
    return drive


def test_brought_once_and_again_when_damaged(driving: Driving, hadoop: Hadoop) -> None:
    environment, content = pack()
    first = run(driving, hadoop, environment, content)
    assert first.record().outcome is Outcome.SUCCESS, first.log()
    assert "PACK {'1'}" in first.log()
    assert "brought the environment" in first.log()

    second = run(driving, hadoop, environment, content)
    assert "PACK {'1'}" in second.log()
    assert "brought the environment" not in second.log()  # 0 bytes

    place = first.log().partition(" MB) to ")[2].partition(" in ")[0]
    damaged = driving.folder / "damaged"
    damaged.write_bytes(content[: len(content) // 2])
    hadoop.command("hdfs", "dfs", "-put", "-f", str(damaged), place)
    third = run(driving, hadoop, environment, content)
    failure = third.record().failure
    assert failure is not None, third.log()
    assert failure.cls is FailureClass.START_FAILED
    assert "it is removed, and the next attempt brings it anew" in failure.summary()

    fourth = run(driving, hadoop, environment, content)
    assert "PACK {'1'}" in fourth.log()
    assert "brought the environment" in fourth.log()


def test_a_damaged_archive_in_the_store_is_not_brought(tmp_path: Path) -> None:
    environment, content = pack()
    store = FileStore(tmp_path)
    store.put(environment.path, content[:-10])
    with pytest.raises(LaunchError, match="is damaged: its checksum is") as caught:
        bring(environment, store=store, place="hdfs://nowhere/x", folder=tmp_path, say=print)
    assert caught.value.kind == FailureClass.START_FAILED


def test_an_archive_that_is_gone(tmp_path: Path) -> None:
    environment, _ = pack()
    with pytest.raises(LaunchError, match="is missing: clear the run to plan anew"):
        bring(environment, store=FileStore(tmp_path), place="hdfs://nowhere/x", folder=tmp_path, say=print)


def test_who_brings_it_shares_no_name_with_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers in containers of their own have equal pids: a name of either's own keeps one from the other's half."""
    environment, content = pack()
    store = FileStore(tmp_path / "staging")
    store.put(environment.path, content)
    for program, does in (("yarn", ""), ("java", f'echo "$@" >>"{tmp_path}/said"')):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / program).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    for _ in range(2):
        bring(environment, store=store, place="hdfs://nowhere/x", folder=tmp_path, say=print)
    lines = [line.split() for line in (tmp_path / "said").read_text().splitlines()]
    put = [line[-1] for line in lines if "-put" in line]
    assert len(set(put)) == 2
    assert [line[-2:] for line in lines if "-mv" in line] == [[name, "hdfs://nowhere/x"] for name in put]


def test_the_place_is_named_by_the_content() -> None:
    environment, _ = pack()
    place = place_of(environment, default_fs="hdfs://cluster/", user="ann")
    assert place == f"hdfs://cluster/user/ann/.mayfly/envs/abc-{environment.sha256[:12]}.tar.gz"
