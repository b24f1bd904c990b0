from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.driver import logbook
from mayfly.driver.logbook import Logbook, clean
from mayfly.driver.loop import Lines


class Shelf:
    """Where segments go."""

    def __init__(self) -> None:
        self.segments: list[bytes] = []
        self.full = False

    def put(self, number: int, data: bytes) -> None:
        assert number == len(self.segments), "segments are numbered without a gap"
        self.segments.append(data)

    def room(self) -> bool:
        return not self.full

    def text(self) -> str:
        return b"".join(self.segments).decode()


def make(tmp_path: Path, *, seconds: float = 0.0) -> tuple[Logbook, Shelf]:
    shelf = Shelf()
    return Logbook(spool=tmp_path / "log", put=shelf.put, room=shelf.room, segment_seconds=seconds), shelf


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain\n", b"plain\n"),
        ("grün ✓\n".encode(), "grün ✓\n".encode()),
        (b"\xff\xfe\x00x\n", b"\\xff\\xfe\\x00x\n"),
        (b" 10%\r 50%\r100%\n", b"100%\n"),
        (b"windows\r\n", b"windows\n"),
        (b"bell\x07 and \x1b[31mred\n", b"bell\\x07 and \x1b[31mred\n"),
    ],
)
def test_output_becomes_readable_text(raw: bytes, shown: bytes) -> None:
    assert clean(raw) == shown


def test_lines_keep_their_order_and_their_prefix(tmp_path: Path) -> None:
    log, shelf = make(tmp_path)
    log.add("script", b"one\ntwo\n")
    log.add("worker", b"three\nfour\n", prefix="[worker 3] ")
    log.say("five")
    log.tick()
    assert shelf.text() == "one\ntwo\n[worker 3] three\n[worker 3] four\n[mayfly] five\n"
    assert log.close().decode() == shelf.text()


def test_a_segment_waits_for_its_time(tmp_path: Path) -> None:
    log, shelf = make(tmp_path, seconds=3600)
    log.add("script", b"one\n")
    log.tick()
    assert shelf.segments == []
    log.close()
    assert shelf.segments == [b"one\n"]


def test_a_big_block_closes_segments_at_once(tmp_path: Path) -> None:
    log, shelf = make(tmp_path, seconds=3600)
    for _ in range(40):
        log.add("script", b"x" * 32_000 + b"\n")
    assert len(shelf.segments) >= 4
    log.close()


def test_100_mb_of_output_stay_bounded_everywhere(tmp_path: Path) -> None:
    log, shelf = make(tmp_path, seconds=3600)
    line = b"y" * 999 + b"\n"
    log.add("script", b"first\n")
    for _ in range(1000):
        log.add("script", line * 100)
    log.add("script", b"last\n")
    whole = log.close()
    live = b"".join(shelf.segments)
    assert len(live) < 9 << 20
    assert live.startswith(b"first\n")
    assert live.endswith(b"last\n")
    assert b"bytes left out here" in live
    assert len(whole) < (50 << 20) + 1000
    assert whole.startswith(b"first\n")
    assert whole.endswith(b"last\n")
    assert b"bytes left out here" in whole
    assert sum(len(line) for line in log.tail("script")) < 1 << 20


def test_a_store_without_room_costs_live_log_only(tmp_path: Path) -> None:
    log, shelf = make(tmp_path)
    shelf.full = True
    for number in range(20):
        log.add("script", b"%099999d\n" % number)
        log.tick()
    assert shelf.segments == []
    shelf.full = False
    log.tick()
    assert len(shelf.segments) == 1
    assert "bytes left out here" in shelf.text()
    assert len(log.close()) > 1_900_000


def test_head_and_tail_join_where_nothing_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook, "WHOLE_BYTES", 200)
    log, _ = make(tmp_path)
    lines = [f"line {number:03d}\n".encode() for number in range(20)]  # 180 bytes
    for line in lines:
        log.add("script", line)
    assert log.close() == b"".join(lines)


def test_a_full_disk_below_the_spool_is_survived(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a file where the folder should be")
    log, shelf = make(tmp_path)
    log.add("script", b"hello\n")
    assert b"disk is full" in log.close()
    assert shelf.text() == "hello\n"


def test_a_line_without_an_end_does_not_wait_for_ever() -> None:
    blocks: list[bytes] = []
    lines = Lines(blocks.append)
    lines.feed(b"a" * 70_000)
    lines.feed(b"b\nrest")
    lines.flush()
    assert b"".join(blocks) == b"a" * 70_000 + b"b\nrest"
    assert len(blocks) == 3
