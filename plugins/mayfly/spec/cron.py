"""Whether a schedule is a cron text that Airflow will take. Pure, and without any cron library."""

from __future__ import annotations

import re
from difflib import get_close_matches

PRESETS = ("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)


def check(text: str) -> str:
    """The text itself; ValueError says which field is wrong and what is allowed."""
    if text.startswith("@"):
        if text not in PRESETS:
            near = get_close_matches(text, PRESETS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown preset {text!r}; {hint}allowed: {', '.join(PRESETS)}")
        return text
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            f"{text!r} has {len(parts)} fields; cron has five (minute, hour, day of month, month, day of week), "
            f'as in "0 6 * * 1-5"; or use a preset: {", ".join(PRESETS)}'
        )
    for part, (name, low, high, names) in zip(parts, _FIELDS, strict=True):
        for item in part.split(","):
            if not _item(item.lower(), low, high, names, name):
                words = f" or {', '.join(names)}" if names else ""
                raise ValueError(
                    f"{text!r}: {item!r} is no {name}; allowed: {low}-{high}{words}, with * , - and /, as in "
                    '"*/15" or "1-5"'
                )
    return " ".join(parts)


def _item(item: str, low: int, high: int, names: dict[str, int], field: str) -> bool:
    if field == "day of month" and item == "l":
        return True
    if field == "day of week" and (match := re.fullmatch(r"(\w+)#[1-5]|l([0-7])", item)):
        return match[2] is not None or _number(match[1], low, high, names) is not None
    match = re.fullmatch(r"(\*|\w+)(?:-(\w+))?(?:/([0-9]{1,2}))?", item)
    if match is None or (match[1] == "*" and match[2]) or (match[3] and not int(match[3])):
        return False
    if match[1] == "*":
        return not match[3] or int(match[3]) <= high
    first = _number(match[1], low, high, names)
    last = _number(match[2], low, high, names) if match[2] else first
    return first is not None and last is not None and first <= last and not (match[3] and int(match[3]) > high)


def _number(text: str, low: int, high: int, names: dict[str, int]) -> int | None:
    number = names.get(text, int(text) if re.fullmatch(r"[0-9]{1,2}", text) else -1)
    return number if low <= number <= high else None
