"""Ctrl-C, SIGTERM and SIGHUP, for a process that has something to tidy up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Interrupted(BaseException):
    """The user asked for an end; the teardown follows. No Exception: nothing may swallow it."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Abandoned(BaseException):
    """The user asked twice."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@dataclass
class Interrupts:
    """Turns signals into a wish that is looked at between two pokes: no step is cut in half."""

    asked: int = 0
    obeyed: bool = False

    def note(self, number: int, _frame: object) -> None:
        if self.asked:
            raise Abandoned(number)
        self.asked = number

    def obey(self) -> None:
        if self.asked and not self.obeyed:
            self.obeyed = True
            raise Interrupted(self.asked)

    @contextmanager
    def watched(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self.note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
