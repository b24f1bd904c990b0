"""The log of one attempt: live segments for readers, the whole log for later, and a tail for the explanation.

A script may print anything and as much as it likes. Lines become valid UTF-8 without control characters; beyond
`LIVE_BYTES` only the end of each interval is shown live, with a line that says how much was left out; the whole log
keeps its head and its tail.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

SEGMENT_BYTES = 256 << 10
LIVE_BYTES = 8 << 20
LIVE_TAIL_BYTES = 8 << 10
WHOLE_BYTES = 50 << 20
TAIL_LINES = 400
LONGEST_LINE = 64 << 10

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")
_OVERWRITTEN = re.compile("[^\n]*\r(?=[^\r\n])")


def clean(block: bytes) -> bytes:
    """`block` as a terminal would show it: valid UTF-8, carriage returns obeyed, control characters escaped."""
    text = block.decode("utf-8", "backslashreplace")
    if "\r" in text:
        text = _OVERWRITTEN.sub("", text).replace("\r", "")
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text).encode("utf-8", "backslashreplace")


class Logbook:
    """`put(number, data)` takes a segment, `room()` says whether it may be called now."""

    def __init__(
        self, *, spool: Path, put: Callable[[int, bytes], None], room: Callable[[], bool], segment_seconds: float
    ) -> None:
        self._put, self._room, self._segment_seconds = put, room, segment_seconds
        self._whole = WholeLog(spool)
        self._pending = bytearray()
        self._left_out = 0
        self._shown = 0
        self._number = 0
        self._cut_at = time.monotonic()
        self._tails: dict[str, deque[str]] = {}
        self.bytes_by_source: dict[str, int] = {}

    def add(self, source: str, block: bytes, *, prefix: str = "") -> None:
        """Whole lines of one source ("script", "host", "worker", "mayfly")."""
        self.bytes_by_source[source] = self.bytes_by_source.get(source, 0) + len(block)
        data = clean(block)
        if not data.endswith(b"\n"):
            data += b"\n"
        if prefix:
            mark = prefix.encode()
            data = b"".join(mark + line for line in data.splitlines(keepends=True))
        tail = self._tails.setdefault(source, deque(maxlen=TAIL_LINES))
        tail.extend(data[-LONGEST_LINE:].decode("utf-8", "replace").removesuffix("\n").split("\n")[-TAIL_LINES:])
        self._whole.write(data)
        self._pending += data
        live = SEGMENT_BYTES if self._shown < LIVE_BYTES else LIVE_TAIL_BYTES
        if len(self._pending) >= SEGMENT_BYTES and self._shown < LIVE_BYTES and self._room():
            self._cut()
        elif len(self._pending) > live:
            self._leave_out(len(self._pending) - live)

    def say(self, text: str) -> None:
        """A line of the driver's own."""
        self.add("mayfly", text.encode(), prefix="[mayfly] ")

    def tail(self, source: str) -> tuple[str, ...]:
        """The last lines of one source, with their prefix."""
        return tuple(self._tails.get(source, ()))

    def tick(self) -> None:
        """Close the segment when its time has come."""
        if self._pending and time.monotonic() - self._cut_at >= self._segment_seconds and self._room():
            self._cut()

    def close(self) -> bytes:
        """Close the last segment; the whole log."""
        if self._pending:
            self._cut()
        return self._whole.finish()

    def _leave_out(self, count: int) -> None:
        end = self._pending.find(b"\n", count)
        count = end + 1 if 0 <= end < len(self._pending) - 1 else count
        del self._pending[:count]
        self._left_out += count

    def _cut(self) -> None:
        data = bytes(self._pending)
        if self._left_out:
            data = f"[mayfly] {self._left_out:,} bytes left out here; driver.log has more\n".encode() + data
        self._put(self._number, data)
        self._number += 1
        self._shown += len(data)
        self._pending.clear()
        self._left_out = 0
        self._cut_at = time.monotonic()


class WholeLog:
    """Head and tail of all output, in two files of `WHOLE_BYTES` / 2. A full disk costs log, never the job."""

    def __init__(self, folder: Path) -> None:
        self._half = WHOLE_BYTES // 2
        self._head: BinaryIO | None = _open(folder / "head")
        self._tail: BinaryIO | None = None
        self._folder = folder
        self._head_size = self._tail_size = self._lost = 0

    def write(self, data: bytes) -> None:
        first = data[: max(0, self._half - self._head_size)]
        if first:
            self._store(self._head, first)
            self._head_size += len(first)
        rest = data[len(first) :]
        if rest:
            if self._tail is None:
                self._tail = _open(self._folder / "tail")
            for part in self._ring_parts(rest):
                self._store(self._tail, part)

    def finish(self) -> bytes:
        """What was kept, and the end of the files."""
        whole = self._read()
        for file in (self._head, self._tail):
            if file is not None:
                file.close()
        self._head = self._tail = None
        return whole

    def _read(self) -> bytes:
        head = self._contents(self._head)
        if not self._tail_size:
            return head + self._lost_line()
        ring = self._contents(self._tail)
        left_out = self._tail_size - len(ring)
        if left_out <= 0:
            return head + ring + self._lost_line()
        place = self._tail_size % self._half
        middle = f"\n[mayfly] {left_out:,} bytes left out here\n".encode()
        return head + middle + ring[place:] + ring[:place] + self._lost_line()

    def _ring_parts(self, data: bytes) -> Iterator[bytes]:
        while data:
            place = self._tail_size % self._half
            part = data[: self._half - place]
            if self._tail is not None:
                self._tail.seek(place)
            self._tail_size += len(part)
            yield part
            data = data[len(part) :]

    def _store(self, file: BinaryIO | None, data: bytes) -> None:
        try:
            if file is None:
                raise OSError("not open")
            file.write(data)
        except OSError:
            self._lost += len(data)

    def _lost_line(self) -> bytes:
        return f"[mayfly] {self._lost:,} bytes of log lost: the disk is full\n".encode() if self._lost else b""

    @staticmethod
    def _contents(file: BinaryIO | None) -> bytes:
        try:
            if file is None:
                return b""
            file.seek(0)
            return file.read()
        except OSError:
            return b""


def _open(path: Path) -> BinaryIO | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "w+b", buffering=0)
    except OSError:
        return None
