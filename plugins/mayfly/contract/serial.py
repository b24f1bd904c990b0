"""The contract's dataclasses as JSON, and back."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar, Union, cast

from mayfly.contract.values import SCHEMA, Json, Timestamp, from_iso, iso
from mayfly.errors import ContractError

T = TypeVar("T")


def encode(value: object) -> bytes:
    """A contract dataclass as UTF-8 JSON, keys in order of declaration."""
    return json.dumps(to_json(value), ensure_ascii=False, indent=1).encode()


def decode(cls: type[T], data: bytes, *, where: str = "") -> T:
    """The inverse of `encode`. ContractError (naming `where`) when `data` is no such object."""
    try:
        return from_json(cls, json.loads(data), where=where)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ContractError(f"{where or cls.__name__}: no complete JSON ({error}); {len(data)} bytes") from error


def to_json(value: Any) -> Json:
    """A contract value as plain JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        return {f.name: _value_to_json(hints[f.name], getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    return cast(Json, value)


def from_json(cls: type[T], data: object, *, where: str = "") -> T:
    """A contract dataclass from plain JSON types; see the module's docstring for what is tolerated."""
    if not isinstance(data, dict):
        raise ContractError(f"{where or cls.__name__}: expected an object, got {type(data).__name__}")
    schema = data.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        raise ContractError(
            f"{where or cls.__name__}: written by a newer Mayfly (schema {schema}, this one reads up to {SCHEMA}); "
            "upgrade this installation"
        )
    hints = _hints(cls)
    known: dict[str, Any] = {}
    for f in dataclasses.fields(cast(Any, cls)):
        if f.name in data:
            known[f.name] = _value_from_json(hints[f.name], data[f.name], where=f"{where or cls.__name__}.{f.name}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ContractError(f"{where or cls.__name__}: no key {f.name!r}")
    return cls(**known)


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _value_to_json(hint: Any, value: Any) -> Json:
    if value is not None and (hint is Timestamp or Timestamp in typing.get_args(hint)):
        return iso(value)
    return to_json(value)


def _value_from_json(hint: Any, value: Any, *, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        others = [arg for arg in args if arg is not type(None)]
        if len(others) != 1:
            return value  # a union of several types is `Json`: anything goes
        return _value_from_json(others[0], value, where=where)
    if hint is Timestamp:
        try:
            return from_iso(value)
        except (TypeError, ValueError) as error:
            raise ContractError(f"{where}: no time: {value!r}") from error
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_json(hint, value, where=where)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError as error:
            raise ContractError(f"{where}: {value!r} is none of {[str(item) for item in hint]}") from error
    if origin is tuple:
        if not isinstance(value, list):
            raise ContractError(f"{where}: expected a list, got {type(value).__name__}")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_value_from_json(args[0], item, where=where) for item in value)
        if len(args) != len(value):
            raise ContractError(f"{where}: expected {len(args)} items, got {len(value)}")
        return tuple(_value_from_json(arg, item, where=where) for arg, item in zip(args, value, strict=True))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ContractError(f"{where}: expected an object, got {type(value).__name__}")
        return {key: _value_from_json(args[1], item, where=f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (str, int, float, bool):
        if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            raise ContractError(f"{where}: expected {hint.__name__}, got {value!r}")
        return value
    return value
