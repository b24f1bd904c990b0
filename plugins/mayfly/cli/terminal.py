"""What people see in a terminal: a live line, tables, ages, sizes. No knowledge of runs."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TextIO

_PLAIN_SECONDS = 10.0
"""Where nothing can be overwritten (a file, CI), a progress line is printed at most this often."""


class Terminal:
    """Lines, and below them one line that is overwritten while something runs (only on a terminal)."""

    def __init__(self, *, out: TextIO | None = None, live: TextIO | None = None, quiet: bool = False) -> None:
        self.out, self.live = out or sys.stdout, live or sys.stderr
        self.quiet = quiet
        self.overwrites = self.live.isatty()
        self._gone: list[TextIO] = []
        self._shown = ""
        self._printed_at = float("-inf")

    def line(self, text: str = "") -> None:
        self._erase()
        self._write(text + "\n", self.out)
        self._draw()

    def warn(self, text: str) -> None:
        self._erase()
        self._write(text + "\n", self.live)
        self._draw()

    def progress(self, text: str) -> None:
        """What happens now. Empty removes the line."""
        if self.quiet:
            return
        if self.overwrites:
            self._erase()
            self._shown = text
            self._draw()
        elif text and time.monotonic() - self._printed_at >= _PLAIN_SECONDS:
            self._printed_at = time.monotonic()
            self._write(text + "\n", self.live)

    def _write(self, text: str, stream: TextIO) -> None:
        """A reader that has gone (`| head`, a closed terminal) must not keep a run from its teardown."""
        if stream in self._gone:
            return
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            self._gone.append(stream)

    def _erase(self) -> None:
        if self._shown and self.overwrites:
            self._write("\r\x1b[K", self.live)

    def _draw(self) -> None:
        if self._shown and self.overwrites:
            width = max(20, shutil.get_terminal_size().columns - 1)
            self._write(self._shown[:width], self.live)


def table(rows: Iterable[Sequence[str]], *, head: Sequence[str]) -> str:
    """Columns as wide as they need to be, two spaces apart."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def age(seconds: float) -> str:
    """About how long, in the largest unit that says enough: 45 s, 12 min, 3 h, 5 d."""
    for size, unit in ((86400 * 2, "d"), (3600 * 2, "h"), (60 * 2, "min")):
        if seconds >= size:
            return f"{seconds / (size / 2):.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
