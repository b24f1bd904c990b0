"""Clouds of a test session, for all test folders (a plugin, named in tests/conftest.py)."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from scripts.cloud import object_store as server
from scripts.cloud import s3_server
from scripts.cloud.object_store import ObjectStore
from scripts.cloud.servers import CloudError, GoProgram

PROGRAMS = {"object_store_program": server.PROGRAM, "s3_program": s3_server.PROGRAM}
"""By the fixture that gives it."""
BUILD_SECONDS = 1800.0
"""For all of them: a quarter of an hour each on a machine with much else to do."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Servers' programs are built before any test's time runs."""
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    programs = [program for name, program in PROGRAMS.items() if name in wanted and not program.missing()]
    if programs and not session.config.option.collectonly:
        builder = threading.Thread(target=_build, args=(programs,), daemon=True)
        builder.start()
        builder.join(BUILD_SECONDS)


def _build(programs: Sequence[GoProgram]) -> None:
    for program in programs:
        try:
            program.built()
        except CloudError:
            pass  # whoever needs it says why


def _built(program: GoProgram) -> Path:
    if why := program.missing():
        pytest.skip(why)
    return program.built()


@pytest.fixture(scope="session")
def object_store_program() -> Path:
    return _built(server.PROGRAM)


@pytest.fixture(scope="session")
def s3_program() -> Path:
    return _built(s3_server.PROGRAM)


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
