"""What one poke at a step found, and the clock that all steps write down."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from mayfly.contract import Timestamp


@dataclass(frozen=True, kw_only=True)
class Poll:
    """What a poke found. `lines` are to be logged, `progress` too when not empty (it is, when nothing changed).
    `again`: seconds within which the next poke should come, None where the usual interval will do."""

    done: bool
    lines: tuple[str, ...] = ()
    progress: str = ""
    result: Any = None
    again: float | None = None


def clock_now() -> Timestamp:
    """To the millisecond, as JSON keeps it."""
    return Timestamp(round(time.time(), 3))
