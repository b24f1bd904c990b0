"""Clouds of a test session, for all test folders (a plugin, named in tests/conftest.py)."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.cloud import object_store as server
from scripts.cloud.object_store import ObjectStore
from scripts.cloud.servers import CloudError

BUILD_SECONDS = 1800.0
"""For the object store's program: minutes on a machine with much else to do."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Its program is built before the first test's time runs."""
    wanted = any("object_store_program" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly and not server.PROGRAM.missing():
        builder = threading.Thread(target=_build, daemon=True)
        builder.start()
        builder.join(BUILD_SECONDS)


def _build() -> None:
    try:
        server.PROGRAM.built()
    except CloudError:
        pass  # whoever needs it says why


@pytest.fixture(scope="session")
def object_store_program() -> Path:
    if why := server.PROGRAM.missing():
        pytest.skip(why)
    return server.PROGRAM.built()


@pytest.fixture(scope="session")
def object_store(object_store_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """One object store for all tests. Whoever stops or freezes it brings it back: better to start one's own."""
    with server.start(tmp_path_factory.mktemp("object-store")) as store:
        yield store


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """gs:// URL of a bucket of this test alone; this process and its children are clients of the object store."""
    for name, value in object_store.env.items():
        monkeypatch.setenv(name, value)
    return object_store.make_bucket(f"mayfly-{uuid.uuid4().hex[:12]}")
