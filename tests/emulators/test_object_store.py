"""The object store of this machine is as Google's where we rely on it."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest

from scripts.cloud import object_store as server
from scripts.cloud.object_store import ObjectStore
from scripts.cloud.servers import CloudError


def test_only_the_first_writer_of_a_name_wins(object_store: ObjectStore, bucket: str) -> None:
    name = bucket.removeprefix("gs://")
    path = f"/upload/storage/v1/b/{name}/o?uploadType=media&name=a%2Fb&ifGenerationMatch=0"
    object_store.request("POST", path, "first")
    with pytest.raises(urllib.error.HTTPError) as refused:
        object_store.request("POST", path, "second")
    with refused.value:
        assert refused.value.code == 412
    assert object_store.request("GET", f"/download/storage/v1/b/{name}/o/a%2Fb?alt=media") == b'"first"'


def test_what_it_refuses_it_explains(object_store: ObjectStore) -> None:
    with pytest.raises(CloudError, match="invalid bucket name"):
        object_store.make_bucket("b")


def test_objects_in_a_folder_are_there_again(object_store: ObjectStore, tmp_path: Path) -> None:
    for _ in range(2):
        with server.start(tmp_path, keep=True) as store:
            store.make_bucket("kept")
    with server.start(tmp_path, keep=True) as store:
        assert b'"kept"' in store.request("GET", "/storage/v1/b?project=mayfly")
    assert store.daemon.pid is None


def test_a_port_in_use_is_said(object_store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(CloudError, match="address already in use"):
        server.start(tmp_path, port=object_store.port)


def test_without_go_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no `go` on the PATH" in (server.PROGRAM.missing() or "")
    with pytest.raises(CloudError, match="Install Go"):
        server.start(tmp_path / "store")
