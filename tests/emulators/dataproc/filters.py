"""The filter language of list: `field = value AND field = value` (AND may be left out), values perhaps in quotes,
`*` = whatever."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.emulators.dataproc.errors import ApiError

_TERM = re.compile(
    r"\s*([A-Za-z_]+(?:\.[A-Za-z0-9_-]+)?)\s*[=:]\s*(\"[^\"]*\"|'[^']*'|[^\s\"']*)\s*(?:(AND)(?=\s)|(?=\S)|$)"
)


def parse(text: str, known: set[str]) -> list[tuple[str, str]]:
    """(field, value) terms; `known` fields, besides `labels.KEY`. INVALID_ARGUMENT for what cannot be understood."""
    terms, at, more = [], 0, False
    while more or text[at:].strip():
        found = _TERM.match(text, at)
        if not found:
            raise ApiError("INVALID_ARGUMENT", f"Invalid list filter: {text!r}: cannot be understood at {text[at:]!r}")
        field, value, again = found.groups()
        if field not in known and not field.startswith("labels."):
            raise ApiError("INVALID_ARGUMENT", f"Invalid list filter: {text!r}: unknown field {field!r}")
        terms.append((field, value.strip("\"'")))
        at, more = found.end(), bool(again)
    return terms


def matches(terms: list[tuple[str, str]], value_of: Callable[[str], str | None], groups: dict[str, set[str]]) -> bool:
    """`value_of(field)` is None where there is no such label; `groups`: names that stand for several values."""
    for field, wanted in terms:
        value = value_of(field)
        if value is None or (wanted != "*" and value != wanted and value not in groups.get(wanted, set())):
            return False
    return True
