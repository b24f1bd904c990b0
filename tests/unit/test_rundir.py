"""One conformance suite for every store that may hold run directories, and what readers do with damaged files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mayfly.contract import (
    SCHEMA,
    Closing,
    Lease,
    Outcome,
    Phase,
    Record,
    Status,
    Timestamp,
    decode,
    encode,
)
from mayfly.errors import ContractError, StoreUnavailable, StoreUnsuitable
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import FileStore, FsspecStore, Store, open_store, require_create_if_absent


class LateBucket(MemoryFileSystem):
    """An object store at its worst: no append, no rename, one write a second per name, listings that lag behind."""

    store: dict[str, Any] = {}  # noqa: RUF012 - the parent keeps its content on the class
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    lag_seconds = 0.3
    writes_per_name_seconds = 1.0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.written: dict[str, float] = {}
        self.born: dict[str, float] = {}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "a" in mode:
            raise NotImplementedError("objects cannot be appended to")
        return super()._open(path, mode=mode, **options)

    def mv(self, *args: Any, **options: Any) -> None:
        raise NotImplementedError("objects cannot be renamed")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        now = time.monotonic()
        if mode == "create" and self.exists(path):
            raise FileExistsError(path)
        if now - self.written.get(path, -10.0) < self.writes_per_name_seconds:
            raise OSError(f"429: more than one write a second to {path}")
        super().pipe_file(path, value, mode=mode, **options)
        self.written[path] = now
        self.born.setdefault(self._strip_protocol(path), now)

    def find(self, path: str, **options: Any) -> list[str]:
        names = super().find(path, **options)
        return [name for name in names if time.monotonic() - self.born[name] > self.lag_seconds]


class ForgetfulBucket(MemoryFileSystem):
    """Accepts the condition and ignores it, as some S3 look-alikes do."""

    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        super().pipe_file(path, value, mode="overwrite", **options)


class OldBucket(MemoryFileSystem):
    """From before create-if-absent: does not know the argument."""

    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012

    def pipe_file(self, path: str, value: bytes) -> None:  # type: ignore[override]
        super().pipe_file(path, value)


class DeadBucket(MemoryFileSystem):
    """Does not answer."""

    def cat_file(self, path: str, **options: Any) -> bytes:
        raise ConnectionError("no route to the store")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        raise ConnectionError("no route to the store")

    def find(self, path: str, **options: Any) -> list[str]:
        raise ConnectionError("no route to the store")


@pytest.fixture(params=["file", "memory", "late", "gs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "gs":
        yield open_store(f"{request.getfixturevalue('bucket')}/staging with space")
        return
    if request.param == "file":
        yield open_store(f"file://{tmp_path}/staging with space")
        return
    fsspec.filesystem("memory").store.clear()
    LateBucket.store.clear()
    yield open_store("memory://staging") if request.param == "memory" else bucket(LateBucket)


def bucket(cls: type[MemoryFileSystem]) -> Store:
    return FsspecStore(cls(skip_instance_cache=True), "/staging", url="bucket://staging")


def test_put_get_list(store: Store) -> None:
    assert store.get("runs/a/plan.json") is None
    assert store.list("runs/") == []
    store.put("runs/a/plan.json", b"1")
    store.put("runs/ab/jobs/x/1/job.json", b"2")
    assert store.get("runs/a/plan.json") == b"1"
    time.sleep(LateBucket.lag_seconds + 0.05)
    assert store.list("runs/") == ["runs/a/plan.json", "runs/ab/jobs/x/1/job.json"]
    assert store.list("runs/a/") == ["runs/a/plan.json"]
    assert store.list("runs/a") == ["runs/a/plan.json", "runs/ab/jobs/x/1/job.json"]
    assert store.list("nothing/") == []


def test_only_the_first_creator_wins(store: Store) -> None:
    assert store.create("x/closing.json", b"first")
    assert not store.create("x/closing.json", b"second")
    assert store.get("x/closing.json") == b"first"
    require_create_if_absent(store)


def test_a_put_replaces_the_whole_object(store: Store) -> None:
    store.put("lease.json", b"a long first version")
    time.sleep(LateBucket.writes_per_name_seconds + 0.05 if "bucket" in store.url else 0)
    store.put("lease.json", b"short")
    assert store.get("lease.json") == b"short"


def test_large_files_go_whole(store: Store, tmp_path: Path) -> None:
    content = b"0123456789" * 1_000_000
    (tmp_path / "large").write_bytes(content)
    assert store.size("envs/a.tar.gz") is None
    assert store.open("envs/a.tar.gz") is None
    assert store.create_file("envs/a.tar.gz", tmp_path / "large")
    (tmp_path / "large").write_bytes(b"another")
    assert not store.create_file("envs/a.tar.gz", tmp_path / "large")
    assert store.size("envs/a.tar.gz") == len(content)
    stream = store.open("envs/a.tar.gz")
    assert stream is not None
    with stream:
        assert stream.read(4) == b"0123"
        assert stream.read() == content[4:]
    store.remove("envs/a.tar.gz")
    store.remove("envs/a.tar.gz")
    assert store.get("envs/a.tar.gz") is None


def test_a_source_that_breaks_off_leaves_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        store.create_file("envs/a.tar.gz", tmp_path / "no such file")
    assert store.get("envs/a.tar.gz") is None
    assert store.list("envs/") == []


@pytest.mark.parametrize("cls", [ForgetfulBucket, OldBucket])
def test_a_store_without_create_if_absent_is_refused(cls: type[MemoryFileSystem]) -> None:
    with pytest.raises(StoreUnsuitable, match="create-if-absent"):
        require_create_if_absent(bucket(cls))


def test_no_answer_is_not_absence() -> None:
    dead = bucket(DeadBucket)
    for ask in (
        lambda: dead.get("x"),
        lambda: dead.list("x"),
        lambda: dead.put("x", b""),
        lambda: dead.create("x", b""),
    ):
        with pytest.raises(StoreUnavailable, match="no route"):
            ask()


def test_a_folder_in_the_way_is_not_absence(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    (tmp_path / "record.json").mkdir()
    with pytest.raises(StoreUnavailable):
        store.get("record.json")
    with pytest.raises(StoreUnavailable):
        store.put("record.json", b"")


def test_a_file_in_the_way_is_not_somebody_who_was_first(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("no folder")
    with pytest.raises(StoreUnavailable):
        FileStore(tmp_path).create("runs/a/plan.json", b"1")


def test_an_unknown_kind_of_store_says_which_are_known() -> None:
    with pytest.raises(StoreUnsuitable, match=r"nowhere://x.*file://, gs:// and.* s3://"):
        open_store("nowhere://x")


def test_nothing_unfinished_is_ever_seen(tmp_path: Path) -> None:
    """A file store shows an object whole or not at all, and leaves nothing beside it."""
    store = FileStore(tmp_path)
    store.put("a/b", b"x" * 100_000)
    store.create("a/c", b"y")
    store.create("a/c", b"z")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b", "c"]


def test_attempts_are_found_by_name_while_listings_lag(store: Store) -> None:
    rundir = RunDir(store, "mayfly-x-0123456789")
    for number in (1, 2):
        rundir.attempt("run_job", number).create("job.json", Closing(at=Timestamp(1.0), by="t"))
    assert rundir.last_attempt("run_job") == 2
    assert rundir.last_attempt("other") == 0
    time.sleep(LateBucket.lag_seconds + 0.05)
    assert rundir.jobs() == ["run_job"]


# ---------------------------------------------------------------- what readers accept

RECORD = Record(
    cluster="c", job="j", attempt=1, outcome=Outcome.SUCCESS, started_at=Timestamp(1.0), ended_at=Timestamp(2.5)
)


def test_half_written_hints_are_nothing_and_half_written_facts_are_an_error(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    attempt = RunDir(store, "c").attempt("j", 1)
    for name in ("status.json", "lease.json", "record.json"):
        store.put(f"{attempt.path}/{name}", encode(RECORD)[:20])
    assert attempt.status() is None
    assert attempt.lease() is None
    with pytest.raises(ContractError, match=r"record\.json.*no complete JSON"):
        attempt.record()


def test_what_a_node_says_is_read_whatever_bytes_are_in_it(tmp_path: Path) -> None:
    rundir = RunDir(FileStore(tmp_path), "mf-x")
    said = b'{"node": "mf-x-m", "ok": false, "seconds": 2.0, "reason": "tar: caf\xe9: no space", "tail": ["\xff"]}'
    rundir.store.put("runs/mf-x/nodes/mf-x-m.json", said)
    assert rundir.node_report("mf-x-m").line == "node mf-x-m could not be set up (2.0 s): tar: caf\ufffd: no space"
    assert rundir.node_report("mf-x-w-0").node == "mf-x-w-0"


def test_every_prefix_of_a_file_is_refused_cleanly() -> None:
    data = encode(RECORD)
    for length in range(len(data)):
        with pytest.raises(ContractError):
            decode(Record, data[:length])
    assert decode(Record, data) == RECORD


def test_unknown_keys_are_ignored_and_missing_ones_take_their_default() -> None:
    data = b'{"seq": 4, "writer": "w", "ttl_s": 60, "invented_later": [1]}'
    assert decode(Lease, data) == Lease(seq=4, writer="w", ttl_s=60.0)
    with pytest.raises(ContractError, match="no key 'writer'"):
        decode(Lease, b'{"seq": 4, "ttl_s": 60}')


@pytest.mark.parametrize("schema", [SCHEMA - 1, None])
def test_what_an_older_mayfly_wrote_is_read(schema: int | None) -> None:
    """An upgrade in mid-run: one schema below ours, and a file from before there was any."""
    for value in (RECORD, Lease(seq=4, writer="w", ttl_s=60.0), Closing(by="delete", at=Timestamp(1795255200.0))):
        written = json.loads(encode(value))
        assert written.pop("schema") == SCHEMA
        if schema is not None:
            written["schema"] = schema
        read = decode(type(value), json.dumps(written).encode())
        assert replace(read, schema=SCHEMA) == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[]", "expected an object"),
        (b'{"seq": "4", "writer": "w", "ttl_s": 60}', r"Lease\.seq: expected int, got '4'"),
        (b'{"seq": true, "writer": "w", "ttl_s": 60}', "expected int, got True"),
        (b'{"schema": 99, "seq": 4, "writer": "w", "ttl_s": 60}', "newer Mayfly"),
        (b"\xff\xfe", "no complete JSON"),
    ],
)
def test_wrong_content_says_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        decode(Lease, data)


def test_status_round_trip_keeps_enums_and_times() -> None:
    status = Status(seq=1, at=Timestamp(1795255200.123), phase=Phase.START, elapsed=2.0, note="ü \"'$()")
    assert decode(Status, encode(status)) == status
    assert b"2026-11-21T10:00:00.123Z" in encode(status)
    with pytest.raises(ContractError, match="is none of"):
        decode(Status, encode(status).replace(b"start Dask", b"start Spark"))
