"""A cloud on this machine: an object store, the Dataproc API with real nodes, and one project for all tests.

Each test makes a cluster of its own, as every run does; nodes, Hadoop, spark-submit, init actions and the packed
environment are the real ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mayfly.contract import Receipt, Record
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import open_store
from scripts.cloud import s3_server, spark
from scripts.cloud.object_store import ObjectStore
from scripts.cloud.s3_server import S3Server
from tests.emulators.dataproc.client import Emulator
from tests.emulators.dataproc.nodes import missing

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "mayfly-runs"
PATIENCE = 900.0
"""Seconds: for what takes a minute or two, on a machine with much else to do."""
TARGET = """
  {name}:
    backend: dataproc
    launcher: yarn
    staging: gs://mayfly-runs/staging
    data: gs://mayfly-runs
    prefix: {name}
    timing: {{poll_inline: 500ms, status: 1s, segment: 1s, stop_grace: 4s, lease_ttl_inline: 120s}}
    gcp: {{project: mayfly-tests, region: europe-west3, image: "3.0", emulator: true, settle: 5s, {more}}}
"""
TARGETS = {
    "plain": "",
    "spot": "secondary: spot",
    "lake": "shares: [{server: filestore, export: /lake, mount: /shared/lake}]",
    "drought": "shares: [{export: /mnt/nothing, mount: /shared/lake}]",
}
JOB = """
target: {target}
targets: [{target}]
cluster:
  workers: {workers}
  worker: {{cores: 1, memory: {memory}}}
timeout: 20m
start_timeout: 15m
retries: 0
{more}
"""


@dataclass
class Cloud:
    """`home` is the project; `lake` the folder of this host behind the NFS export /lake."""

    emulator: Emulator
    home: Path
    lake: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def add_job(
        self, name: str, script: str, *, target: str, workers: int, memory: str = "1500 MB", more: str = ""
    ) -> None:
        folder = self.home / "jobs" / name
        folder.mkdir(parents=True)
        (folder / "job.yaml").write_text(JOB.format(target=target, workers=workers, memory=memory, more=more))
        (folder / f"{name}.py").write_text(script)

    def start(self, *arguments: str) -> Running:
        """`mayfly` with these arguments, left running."""
        out = self.home / f"out-{len(self.started)}.txt"
        with out.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "mayfly", *arguments],
                env=os.environ | {"MAYFLY_HOME": str(self.home), "COLUMNS": "120"},
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.home,
            )
        self.started.append(process)
        return Running(process, out)


@dataclass
class Running:
    """A command and what it prints."""

    process: subprocess.Popen[str]
    out: Path

    @property
    def text(self) -> str:
        return self.out.read_text()

    def wait_for(self, pattern: str, *, seconds: float = PATIENCE) -> re.Match[str]:
        """Until something that it prints matches."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None
            if found := re.search(pattern, self.text, re.M):
                return found
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{pattern!r} was never printed:\n{self.text}")
            time.sleep(0.2)

    def end(self, code: int) -> str:
        """All that it has printed, when it has ended with this exit code."""
        found = self.process.wait(PATIENCE)
        assert found == code, self.text
        return self.text

    @property
    def rundir(self) -> RunDir:
        """Of the run that it makes."""
        name = self.wait_for(r"^cluster +(\S+) \(generation").group(1)
        return RunDir(open_store(f"gs://{BUCKET}/staging"), name)

    def receipt(self) -> Receipt:
        receipt = self.rundir.receipt()
        assert receipt is not None
        return receipt

    def record(self) -> Record:
        record = self.rundir.attempt("run_job", 1).record()
        assert record is not None
        return record


@pytest.fixture(scope="session")
def s3(s3_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Another cloud's store, which nodes reach at the address that it has here."""
    with s3_server.start(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def one_cloud(object_store: ObjectStore, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    if why := missing() or spark.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("cloud")
    home, lake = folder / "project", folder / "lake"
    lake.mkdir()
    (home / "config").mkdir(parents=True)
    targets = "".join(TARGET.format(name=name, more=more) for name, more in TARGETS.items())
    (home / "config" / "targets.yaml").write_text(f"targets:{targets}")
    shutil.copytree(ROOT / "jobs" / "flights", home / "jobs" / "flights")
    (home / "jobs" / "requirements.txt").write_text("s3fs\nhdfs-native\n")
    object_store.make_bucket(BUCKET)
    options = {"spark": str(spark.home()), "exports": {"/lake": str(lake)}, "ports": [s3.port]}
    with Emulator(
        folder / "dataproc", machines="nodes", node_options=options, preempt_notice=3600, env=object_store.env
    ) as emulator:  # a test that has a node preempted loses it when it has seen what the notice does
        cloud = Cloud(emulator, home, lake)
        with pytest.MonkeyPatch.context() as patch:  # for as long as it is needed: other tests have clouds of their own
            for name, value in {**object_store.env, "DATAPROC_EMULATOR_HOST": emulator.host}.items():
                patch.setenv(name, value)
            cloud.start("env", "build", "--target", "plain").end(0)
        yield cloud
        for process in cloud.started:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture(scope="session")
def flights_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data as CSV files, one a month."""
    folder = tmp_path_factory.mktemp("data") / "flights"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_demo_data.py"), str(folder)], check=True)
    return folder


@pytest.fixture
def cloud(one_cloud: Cloud, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name, value in {**object_store.env, "DATAPROC_EMULATOR_HOST": one_cloud.emulator.host}.items():
        monkeypatch.setenv(name, value)
    yield one_cloud
    assert one_cloud.emulator.clusters() == [], "a cluster outlived its run"
