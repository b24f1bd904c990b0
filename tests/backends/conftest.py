"""The emulated API, and a target, backend and project on it, for the tests of the backend dataproc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.backends.dataproc import DataprocBackend
from mayfly.contract import (
    FrozenTarget,
)
from scripts.cloud.object_store import ObjectStore
from tests.backends.on_dataproc import Project, make_target
from tests.emulators.dataproc.client import Emulator


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("dataproc"), env=dict(object_store.env), output_seconds=0.1) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The API, without any fault, cluster or count of an earlier test."""
    monkeypatch.setenv("DATAPROC_EMULATOR_HOST", running.host)
    yield running
    running.clear()
    running.settings(cluster_quota=0, read_quota=0, speed=1.0, create=0.0, cpus=0)


@pytest.fixture
def target(emulator: Emulator, bucket: str) -> FrozenTarget:
    return make_target(f"{bucket}/prod")


@pytest.fixture
def backend(target: FrozenTarget) -> DataprocBackend:
    return DataprocBackend(target)


@pytest.fixture
def project(tmp_path: Path, target: FrozenTarget) -> Project:
    return Project(tmp_path, target)
