"""Params of a job: JSON schemas that become the trigger form, and values checked against them.

Covers the keywords a form can show; Airflow checks the same schemas again, with the whole of JSON schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field, JsonValue
from typing_extensions import TypedDict  # pydantic needs it below Python 3.12

TypeName = Literal["string", "integer", "number", "boolean", "array", "object", "null"]


Number = int | float


class ParamSchema(TypedDict, total=False):
    """One field of the form. `default` makes it optional; a type `[string, "null"]` may be left empty."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # type: ignore[misc]  # pydantic reads it here

    type: TypeName | list[TypeName]
    default: JsonValue
    title: str
    description: str
    description_md: str
    enum: Annotated[list[JsonValue], Field(min_length=1)]
    values_display: dict[str, str]
    examples: list[JsonValue]
    const: JsonValue
    minimum: Number
    maximum: Number
    exclusiveMinimum: Number
    exclusiveMaximum: Number
    multipleOf: Annotated[Number, Field(gt=0)]
    minLength: Annotated[int, Field(ge=0)]
    maxLength: Annotated[int, Field(ge=0)]
    pattern: str
    format: Literal["date", "date-time", "time", "multiline", "duration", "email", "uri"]
    items: dict[str, JsonValue]
    minItems: Annotated[int, Field(ge=0)]
    maxItems: Annotated[int, Field(ge=0)]
    uniqueItems: bool
    properties: dict[str, JsonValue]
    required: list[str]
    section: str


_TYPES: Mapping[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def check_schema(schema: ParamSchema) -> ParamSchema:
    """The schema itself. ValueError when it contradicts itself: bad pattern, empty range, default that it refuses."""
    if "type" not in schema and "enum" not in schema:
        raise ValueError(f"has no type; add one of {', '.join(_TYPES)}")
    if "pattern" in schema:
        try:
            re.compile(schema["pattern"])
        except re.error as error:
            raise ValueError(f"pattern {schema['pattern']!r} is no regular expression: {error}") from error
    plain = cast(Mapping[str, Any], schema)
    for low, high in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
        if low in plain and high in plain and plain[low] > plain[high]:
            raise ValueError(f"{low} ({plain[low]}) is more than {high} ({plain[high]}); swap them")
    if "default" in plain and (problem := problem_with(plain["default"], plain)):
        raise ValueError(f"default {problem}")
    return schema


def problem_with(value: Any, schema: Mapping[str, Any]) -> str:
    """Why `schema` refuses `value`, in words; empty when it does not."""
    given = json.dumps(value, ensure_ascii=False, default=str)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{given} is no {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{given} is none of {json.dumps(schema['enum'], ensure_ascii=False)}"
    if "const" in schema and value != schema["const"]:
        return f"{given} is not {json.dumps(schema['const'], ensure_ascii=False)}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value, schema, given)
    if isinstance(value, str):
        return _string(value, schema, given)
    if isinstance(value, list):
        return _list(value, schema, given)
    return ""


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _number(value: float, schema: Mapping[str, Any], given: str) -> str:
    if "minimum" in schema and value < schema["minimum"]:
        return f"{given} is less than the minimum {schema['minimum']:g}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"{given} is more than the maximum {schema['maximum']:g}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        return f"{given} is not more than {schema['exclusiveMinimum']:g}"
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        return f"{given} is not less than {schema['exclusiveMaximum']:g}"
    if "multipleOf" in schema and (value / schema["multipleOf"]) % 1:
        return f"{given} is no multiple of {schema['multipleOf']:g}"
    return ""


def _string(value: str, schema: Mapping[str, Any], given: str) -> str:
    if len(value) < schema.get("minLength", 0):
        return f"{given} has fewer than {schema['minLength']} characters"
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        return f"{given} has more than {schema['maxLength']} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{given} does not match {schema['pattern']!r}"
    return ""


def _list(value: list[Any], schema: Mapping[str, Any], given: str) -> str:
    if len(value) < schema.get("minItems", 0):
        return f"{given} has fewer than {schema['minItems']} items"
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        return f"{given} has more than {schema['maxItems']} items"
    if isinstance(schema.get("items"), Mapping):
        problems = (problem_with(item, schema["items"]) for item in value)
        return next((f"item {problem}" for problem in problems if problem), "")
    return ""
