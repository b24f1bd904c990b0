"""The types of fields in job.yaml and targets.yaml: units are parsed here, once.

From a file (validation context `FROM_FILE`) sizes and durations need their units. In Python code plain numbers are
bytes and seconds: `WorkerSpec(cores=2, memory=4 * 10**9)`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)

from mayfly import units

FROM_FILE: Final = {"from_file": True}
"""Validation context for values that come from a file: a size or a duration without a unit is refused."""


class Model(BaseModel):
    """Strict, frozen, and without unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class KeyedError(ValueError):
    """What is wrong between several keys, told at one of them (dotted)."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


def _size(value: object, info: ValidationInfo) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and info.context is not FROM_FILE:
        return value
    return units.parse_size(value)


def _duration(value: object, info: ValidationInfo) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and info.context is not FROM_FILE:
        return float(value)
    return units.parse_duration(value)


def _duration_or_off(value: object, info: ValidationInfo) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and info.context is not FROM_FILE:
        return float(value)
    return units.parse_duration(value, zero=True)


def _number_as_text(value: object) -> object:
    # An integer has one spelling; 1.10 and true have several, and the script would see another than was written.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def no_nul(value: str) -> str:
    """The text itself; ValueError when no program could be given it."""
    if "\0" in value:
        raise ValueError("contains a NUL character, which no program argument or variable can hold")
    return value


def no_secret(values: dict[str, Any]) -> dict[str, Any]:
    """The values themselves; ValueError when a key says that a secret stands in a file that everybody can read."""
    for key, value in values.items():
        if re.search(r"password|passwd|secret|token|credential|private_key", key, re.IGNORECASE):
            raise ValueError(f"{key!r} looks like a secret; put it into an Airflow connection and name that")
        if isinstance(value, dict):
            no_secret(value)
    return values


_DURATION_SCHEMA: Final = {"type": "string", "pattern": units.DURATION_PATTERN, "examples": ["90m", "2h", "1h30m"]}
Size = Annotated[
    int,
    BeforeValidator(_size),
    Field(gt=0),
    WithJsonSchema({"type": "string", "pattern": units.SIZE_PATTERN, "examples": ["14 GB", "14 GiB", "512 MB"]}),
]
"""Bytes; "14 GB" in a file."""
Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0), WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds, more than 0; "90m" in a file."""


def at_most(limit: float) -> AfterValidator:
    """Refuse more than `limit` seconds."""

    def check(value: float) -> float:
        if value > limit:
            raise ValueError(f"{units.format_duration(value)} is too long; at most {units.format_duration(limit)}")
        return value

    return AfterValidator(check)


DurationOrOff = Annotated[
    float,
    BeforeValidator(_duration_or_off),
    Field(ge=0),
    WithJsonSchema({"anyOf": [_DURATION_SCHEMA, {"enum": [0, "off"]}]}),
]
"""Seconds, 0 = off; "30m", 0 or "off" in a file."""
Text = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(no_nul),
    WithJsonSchema({"type": ["string", "integer"]}),
]
Texts = Annotated[tuple[Text, ...], Strict(False)]
"""A list in a file."""
