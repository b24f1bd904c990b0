"""What one poke at a step found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Poll:
    """What a poke found. `lines` are to be logged, `progress` too when not empty (it is, when nothing changed)."""

    done: bool
    lines: tuple[str, ...] = ()
    progress: str = ""
    result: Any = None
