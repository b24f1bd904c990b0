from __future__ import annotations

import threading
from pathlib import Path

from mayfly.driver.writer import Write, Writer
from mayfly.errors import StoreUnavailable
from mayfly.staging.stores import FileStore


class FailsTwice(FileStore):
    """A store with a bad moment."""

    failures = 2

    def put(self, path: str, data: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("a bad moment")
        super().put(path, data)


class DiskFull(FileStore):
    """Takes small objects only."""

    def put(self, path: str, data: bytes) -> None:
        if len(data) > 100:
            raise StoreUnavailable("no space left on device")
        super().put(path, data)


class Gone(FileStore):
    """Refuses everything."""

    def create(self, path: str, data: bytes) -> bool:
        raise StoreUnavailable("gone")


class Hangs(FileStore):
    """Never answers."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.release = threading.Event()

    def put(self, path: str, data: bytes) -> None:
        self.release.wait(60)


LAST = Write(path="record.json", data=b"{}", once=True)


def test_everything_arrives_in_order(tmp_path: Path) -> None:
    writer = Writer(FileStore(tmp_path))
    for number in range(20):
        writer.ordered(Write(path=f"log/{number}", data=b"x", group="log"))
        writer.latest("status", str(number).encode())
    assert writer.finish(LAST, timeout=30)
    assert len(list((tmp_path / "log").iterdir())) == 20
    assert (tmp_path / "status").read_bytes() == b"19"
    assert (tmp_path / "record.json").exists()


def test_a_bad_moment_loses_nothing(tmp_path: Path) -> None:
    writer = Writer(FailsTwice(tmp_path), first_delay=0.01)
    writer.ordered(Write(path="log/0", data=b"x", group="log"))
    writer.ordered(Write(path="log/1", data=b"y", group="log"))
    while not writer.room() or (tmp_path / "log" / "1").exists() is False:
        threading.Event().wait(0.02)
    assert writer.finish(LAST, timeout=30)
    assert (tmp_path / "log" / "0").read_bytes() == b"x"


def test_a_full_disk_still_gets_the_record_and_leaves_no_gap(tmp_path: Path) -> None:
    writer = Writer(DiskFull(tmp_path), first_delay=0.01)
    writer.ordered(Write(path="log/0", data=b"small", group="log"))
    writer.ordered(Write(path="log/1", data=b"x" * 1000, group="log"))
    writer.ordered(Write(path="log/2", data=b"small", group="log"))
    assert writer.finish(LAST, timeout=30)
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["0"]


def test_a_store_that_heals_at_the_end_gets_everything(tmp_path: Path) -> None:
    store = FailsTwice(tmp_path)
    store.failures = 12
    writer = Writer(store, first_delay=0.01)
    writer.latest("status", b"s")
    writer.ordered(Write(path="log/0", data=b"x", group="log"))
    writer.ordered(Write(path="log/1", data=b"y", group="log"))
    assert writer.finish(LAST, timeout=120)
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["0", "1"]


def test_a_store_that_does_not_heal_is_left_without_the_log_in_time_for_the_record(tmp_path: Path) -> None:
    store = FailsTwice(tmp_path)  # `put` fails for good, `create` works
    store.failures = 1_000_000
    writer = Writer(store, first_delay=0.01)
    writer.latest("status", b"s")
    writer.ordered(Write(path="log/0", data=b"x", group="log"))
    assert writer.finish(LAST, timeout=4)
    assert (tmp_path / "record.json").exists()
    assert not (tmp_path / "log").exists()


def test_a_dead_store_neither_blocks_nor_fills_memory(tmp_path: Path) -> None:
    store = Hangs(tmp_path)
    writer = Writer(store)
    for number in range(1000):
        if not writer.room():
            break
        writer.ordered(Write(path=f"log/{number}", data=b"x" * 100_000, group="log"))
        writer.latest("status", b"s")
    assert number < 200
    assert not writer.finish(LAST, timeout=0.3)
    store.release.set()


def test_a_record_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b"first")
    assert Writer(FileStore(tmp_path)).finish(LAST, timeout=30)
    assert (tmp_path / "record.json").read_bytes() == b"first"


def test_no_room_for_the_record_is_told(tmp_path: Path) -> None:
    writer = Writer(Gone(tmp_path))
    assert not writer.finish(LAST, timeout=0.5)
    assert writer.problem == "gone"
