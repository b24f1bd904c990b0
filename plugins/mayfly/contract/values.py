"""What all files of the run directory have in common: their schema, and times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NewType, TypeAlias

SCHEMA = 1
"""Written into every file; a reader accepts its own and the one before."""

Timestamp = NewType("Timestamp", float)
"""POSIX seconds; an ISO-8601 UTC string in JSON."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def iso(at: float) -> str:
    """POSIX seconds as ISO-8601 UTC with milliseconds, e.g. `2026-11-21T10:15:22.123Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_iso(text: str) -> Timestamp:
    """The inverse of `iso`; ValueError when `text` is no ISO-8601 time with a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time without a zone: {text!r}")
    return Timestamp(moment.timestamp())
