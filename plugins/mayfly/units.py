"""Sizes and durations: text to numbers once, at the edge, and numbers to text for people.

Sizes are bytes, durations are seconds. A number without a unit is refused, since nobody can tell what was meant.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

_SIZES: dict[str, int] = {"B": 1} | {
    f"{letter}{suffix}": int(base**power)
    for power, letter in enumerate(("k", "M", "G", "T", "P"), start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
_SIZES_BY_LOWER = {unit.lower(): factor for unit, factor in _SIZES.items()}
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

SIZE_PATTERN = r"^\s*\d{1,15}(\.\d{1,9})?\s*([kKmMgGtTpP][iI]?)?[bB]\s*$"
"""What `parse_size` takes, as a regular expression for JSON schemas."""
DURATION_PATTERN = r"^\s*(\d{1,12}(\.\d{1,9})?\s*(ms|s|min|m|h|d)\s*)+$"
"""What `parse_duration` takes, as a regular expression for JSON schemas."""

_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*")
_PART = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*")

_SIZE_HELP = (
    'write a number and a unit: B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024), as in "14 GB"'
)
_DURATION_HELP = 'write numbers with units s, m, h, d, as in "90m", "2h" or "1h30m"'
_MAX_SIZE = 10**18
_MAX_DURATION = 10 * 365 * 86400.0


def parse_size(value: object) -> int:
    """Bytes of "14 GB", "14GiB", "512 MB", "1.5 TB" (units in any case). ValueError for anything else, and for 0."""
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} has no unit; {_SIZE_HELP}")
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(f"{_shown(value)} is no size; {_SIZE_HELP}")
    number, unit = match.groups()
    factor = _SIZES_BY_LOWER.get(unit.lower())
    if factor is None:
        reason = f"has an unknown unit {unit!r}{_nearest(unit, _SIZES_BY_LOWER, _SIZES)}" if unit else "has no unit"
        raise ValueError(f"{_shown(value)} {reason}; {_SIZE_HELP}")
    size = round(float(number) * factor) if "." in number else int(number) * factor
    if size < 1:
        raise ValueError(f"{_shown(value)} is no size; it must be more than 0")
    if size > _MAX_SIZE:
        raise ValueError(f"{_shown(value)} is too large; at most {format_size(_MAX_SIZE)}")
    return size


def parse_duration(value: object, *, zero: bool = False) -> float:
    """Seconds of "90m", "2h", "1d", "45s", "1h30m", "1h 30m", "0.5s", "200ms".

    `zero` also allows 0, "0" and "off" (= 0.0). ValueError for anything else.
    """
    if zero and ((value == 0 and not isinstance(value, bool)) or value in ("0", "off")):
        return 0.0
    allowed = _DURATION_HELP + (", or 0 to turn it off" if zero else "")
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} has no unit; {allowed}")
    seconds, at = 0.0, 0
    while at < len(value) or not value:
        match = _PART.match(value, at)
        if match is None:
            raise ValueError(f"{_shown(value)} is no duration; {allowed}")
        number, unit = match.groups()
        factor = _DURATIONS.get(unit)
        if factor is None:
            reason = f"has an unknown unit {unit!r}{_nearest(unit, _DURATIONS, _DURATIONS)}" if unit else "has no unit"
            raise ValueError(f"{_shown(value)} {reason}; {allowed}")
        seconds += float(number) * factor
        at = match.end()
    if seconds <= 0 and not zero:
        raise ValueError(f"{_shown(value)} is too short; it must be more than 0")
    if seconds > _MAX_DURATION:
        raise ValueError(f"{_shown(value)} is too long; at most {format_duration(_MAX_DURATION)}")
    return seconds


def format_size(size: float) -> str:
    """Bytes for people, three digits, powers of 1000: "14 GB", "1.5 MB", "0 B". `parse_size` reads it back."""
    sign, rest = ("-", -size) if size < 0 else ("", size)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        # 999.5 would be printed as 1000 of this unit, so it belongs to the next one
        if rest < 999.5 or unit == "PB":
            digits = 0 if unit == "B" or rest >= 99.95 else 1 if rest >= 9.995 else 2
            text = f"{rest:.{digits}f}"
            return f"{sign}{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
        rest /= 1000
    raise RuntimeError("unreachable: PB takes all")


def format_duration(seconds: float) -> str:
    """Seconds for people: "1h 23m 45s", "2m", "3.4s", "120ms", "0s". `parse_duration` reads it back."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < 0.0005:
        return "0s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95 and round(seconds, 1) != round(seconds):
        return f"{seconds:.1f}s"
    rest, parts = round(seconds), []
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, factor)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _nearest(unit: str, keys: dict[str, int] | dict[str, float], names: dict[str, int] | dict[str, float]) -> str:
    found = get_close_matches(unit.lower(), list(keys), n=1, cutoff=0.5)
    if not found:
        return ""
    return f" (did you mean {next(name for name in names if name.lower() == found[0])!r}?)"
