"""One round of a loop that must go on, whatever happens in it."""

from __future__ import annotations

import logging
from types import TracebackType


class Guarded:
    """`with guarded:` around each round: an exception ends the round and not the loop. It is logged once, not in each
    round again."""

    def __init__(self, logger: logging.Logger, doing: str) -> None:
        self._logger, self._doing = logger, doing
        self._last = ""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):  # none, or the loop is told to end
            return False
        if self._last != (now := repr(error)):
            self._last = now
            self._logger.error(self._doing, exc_info=error)
        return True
