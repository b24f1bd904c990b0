"""The backend dataproc: the conformance suite on the emulated API, and what only a cloud can do wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.contract import FrozenTarget, Timing
from mayfly.nodes import GcpPlan
from tests.backends.conformance import BackendConformance
from tests.emulators.dataproc.client import Emulator

GCP = GcpPlan(project="acme-data", region="europe-west3", call_deadline=10.0, settle=1.0)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("dataproc"), env={"STORAGE_EMULATOR_HOST": ""}) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The API, without any fault, machine or memory of an earlier test."""
    monkeypatch.setenv("DATAPROC_EMULATOR_HOST", running.host)
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # google-auth asks nobody whether this is one of Google's machines
    yield running
    running.clear()


@pytest.fixture
def target(emulator: Emulator, tmp_path: Path) -> FrozenTarget:
    # A folder as staging: no object store is needed where "nodes" are processes of this machine.
    return FrozenTarget(
        name="gcp",
        backend="dataproc",
        launcher="processes",
        staging=f"file://{tmp_path / 'staging'}",
        timing=Timing(poll_inline=0.1, status=0.2),
        gcp=GCP,
    )


class TestConformance(BackendConformance):
    pass
