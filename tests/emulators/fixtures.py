"""Clouds of a test session, for all test folders (a plugin, named in tests/conftest.py)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from scripts.cloud import object_store as server
from scripts.cloud.object_store import ObjectStore


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """One object store for all tests. Whoever stops or freezes it brings it back: better to start one's own."""
    if why := server.PROGRAM.missing():
        pytest.skip(why)
    with server.start(tmp_path_factory.mktemp("object-store")) as store:
        yield store


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """gs:// URL of a bucket of this test alone; this process and its children are clients of the object store."""
    for name, value in object_store.env.items():
        monkeypatch.setenv(name, value)
    return object_store.make_bucket(f"mayfly-{uuid.uuid4().hex[:12]}")
