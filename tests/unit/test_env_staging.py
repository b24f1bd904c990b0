"""How an environment gets into a staging store: once, whole, and the first one for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from mayfly.contract import Timestamp
from mayfly.environments import archive
from mayfly.environments.packing import Built
from mayfly.environments.staging import Staged, in_store, keys_in, remove_from, upload
from mayfly.errors import StoreUnavailable
from mayfly.staging.stores import FileStore, Store, open_store


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    fsspec.filesystem("memory").store.clear()
    yield open_store(f"file://{tmp_path}/staging" if request.param == "file" else "memory://staging")


def staged(folder: Path, content: str) -> Staged:
    """As two machines would build the same key: each with bytes of its own."""
    (folder / content / "bin").mkdir(parents=True)
    (folder / content / "bin" / "python3").write_text(content)
    path = folder / f"{content}.tar.gz"
    sha256 = archive.pack(folder / content, path)
    built = Built(
        key="abc",
        sha256=sha256,
        bytes=path.stat().st_size,
        unpacked=10,
        python="3.11.7",
        interpreter="uv",
        requirements="jobs/requirements.txt",
        packages={"dask": "2026.8.0"},
        built_at=Timestamp(1.0),
    )
    return Staged(built=built, local=path)


def test_the_first_one_is_everybodys(store: Store, tmp_path: Path) -> None:
    mine, theirs = staged(tmp_path, "mine"), staged(tmp_path, "theirs")
    environment, said = upload(mine, store=store)
    assert (environment.path, environment.sha256) == (mine.built.path, mine.built.sha256)
    assert "uploaded in " in said
    second, said = upload(theirs, store=store)
    assert second == environment
    assert "in the store already" in said
    assert store.size(environment.path) == environment.bytes
    assert keys_in(store) == ["abc"]


def test_again_after_being_cut_off_between_archive_and_description(store: Store, tmp_path: Path) -> None:
    mine = staged(tmp_path, "mine")
    assert mine.local is not None
    store.create_file(mine.built.path, mine.local)
    assert in_store(store, "abc") is None  # nobody begins to use it
    environment, _ = upload(mine, store=store)
    assert in_store(store, "abc") == mine.built
    assert environment.sha256 == mine.built.sha256


def test_removing(store: Store, tmp_path: Path) -> None:
    mine = staged(tmp_path, "mine")
    upload(mine, store=store)
    assert remove_from(store, "abc")
    assert not remove_from(store, "abc")
    assert store.list("envs/") == []


def test_a_store_without_room_keeps_no_half(tmp_path: Path) -> None:
    mine = staged(tmp_path, "mine")
    (tmp_path / "staging").touch()  # where the folder should be
    with pytest.raises(StoreUnavailable):
        upload(mine, store=FileStore(tmp_path / "staging"))
