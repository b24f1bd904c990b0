"""Turns what pydantic found wrong into what the user needs: line, key, what was given, what is allowed, what is near"""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from mayfly.errors import SpecError
from mayfly.project import yamlfile
from mayfly.spec.fields import KeyedError

Place = tuple[str | int, ...]

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "tuple_type": "a list, as in [a, b]",
    "list_type": "a list, as in [a, b]",
}
_BOUNDS = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "multiple_of": "a multiple of {multiple_of:g}",
    "string_too_short": "at least {min_length} character(s) long",
    "too_short": "at least {min_length} item(s) long",
}


def choices(given: str, allowed: Iterable[str]) -> str:
    """For example: did you mean 'local'? allowed: edge, local"""
    names = sorted(allowed)
    if not names:
        return "there is none yet"
    near = get_close_matches(given, names, n=1, cutoff=0.6)
    return (f"did you mean {near[0]!r}? " if near else "") + f"allowed: {', '.join(names)}"


def spec_error(error: ValidationError, *, model: type[BaseModel], data: Any, text: str, shown: str) -> SpecError:
    """One error for all that is wrong in a file; the first gives line and key, the others follow in the message."""
    found: dict[Place, str] = {}
    tagged: dict[Place, str] = {}
    for item in error.errors(include_url=False):
        loc = tuple(part for part in item["loc"] if part != "[key]")
        place = _existing(loc, data)
        if item["type"] in ("extra_forbidden", "missing"):
            place = (*_existing(loc[:-1], data), loc[-1])
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, KeyedError):
            place = (*place, *inner.key.split("."))
        message = _message(item, place=place, model=model)
        # a union reports its other members, too, under names that are not in the file: those come last
        (tagged if len(place) < len(loc) and item["type"] in _EXPECTED else found).setdefault(place, message)
    for place, message in tagged.items():
        if not any(other[: len(place)] == place for other in found):
            found[place] = message
    problems = [(yamlfile.line_of(text, place) or 1, _key(place), message) for place, message in found.items()]
    problems.sort(key=lambda problem: problem[0])
    line, key, message = problems[0]
    others = [str(SpecError(message, file=shown, line=line, key=key)) for line, key, message in problems[1:]]
    return SpecError("\n".join([message, *others]), file=shown, line=line, key=key)


def _message(item: Any, *, place: Place, model: type[BaseModel]) -> str:
    kind, given, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key; {choices(str(place[-1]), _keys_at(model, place[:-1]))}"
    if kind == "missing":
        return "this key is missing; add it"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"{_shown(given)} is not allowed; allowed: {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"{_shown(given)} is not allowed; it must match {context['pattern']}"
    if kind in _BOUNDS:
        return f"must be {_BOUNDS[kind].format(**context)}, got {_shown(given)}"
    if kind in _EXPECTED:
        quotes = (
            f'; put it in quotes: "{_shown(given)}"'
            if kind == "string_type" and isinstance(given, (int, float))
            else ""
        )
        return f"expected {_EXPECTED[kind]}, got {_shown(given)}{quotes}"
    return f"{item['msg']}, got {_shown(given)}"


def _existing(loc: Place, data: Any) -> Place:
    """The parts of a pydantic location that are in the file (it also names members of unions)."""
    place: list[str | int] = []
    inner = data
    for part in loc:
        if isinstance(inner, list):  # where a list is too short for what is refused, its default was added
            known = isinstance(part, int) and part < len(inner)
        else:
            known = isinstance(inner, dict) and part in inner
        if known:
            place.append(part)
            inner = inner[part]
    return tuple(place)


def _keys_at(model: type[BaseModel], place: Place) -> set[str]:
    schema = _schema(model)
    nodes = [schema]
    for part in (*place, None):
        flat: list[dict[str, Any]] = []
        while nodes:
            node = nodes.pop()
            if "$ref" in node:
                nodes.append(schema["$defs"][node["$ref"].rpartition("/")[2]])
            elif "anyOf" in node:
                nodes += node["anyOf"]
            else:
                flat.append(node)
        if part is None:
            return {key for node in flat for key in node.get("properties", {})}
        for node in flat:
            below = [node.get("properties", {}).get(part), node.get("additionalProperties"), node.get("items")]
            nodes += [
                inner for inner in (*below, *node.get("patternProperties", {}).values()) if isinstance(inner, dict)
            ]
    return set()


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _key(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
