"""Strict YAML: the part of it that means the same to every reader.

Only mappings with text keys, lists, strings, numbers, true / false and null. Refused, each with file and line:
duplicate keys, aliases (they can explode, and hide what a file says), tags, several documents, files above 256 kB.
Scalars follow YAML 1.2: `no`, `12:30` and `2026-01-31` are strings, not false, 750 and a date.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from mayfly.errors import SpecError

try:
    from yaml import CSafeLoader as _Base
except ImportError:  # PyYAML without libyaml: the same, slower
    from yaml import SafeLoader as _Base  # type: ignore[assignment]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 50
_CORE = "tag:yaml.org,2002:"


class _Loader(_Base):
    """Resolves plain scalars as YAML 1.2's core schema does."""

    # PyYAML's own way to have a table per class; its type stubs take it for an instance variable
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}  # type: ignore[misc]


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    # A whole number has one spelling, so that it can become text again unchanged. 007, +49 and 19 digits are names.
    ("int", r"0|-?[1-9][0-9]{0,17}", list("-0123456789")),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*|(?=[eE])))([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_CORE + _tag, re.compile(rf"^(?:{_pattern})$"), _first)


def _value(node: yaml.Node) -> Any:
    """A node as plain Python. Not PyYAML's constructors: these build objects, keep the last of two equal keys, and
    take twice the time."""
    if isinstance(node, yaml.MappingNode) and node.tag == _CORE + "map":
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _value(key_node)
            if isinstance(key, dict):
                raise _problem('a template needs quotes around it, as in "{{ inputs.x }}"', key_node)
            if not isinstance(key, str):
                raise _problem(f"the key {key!r} is not text; put it in quotes", key_node)
            if key in result:
                raise _problem(f"the key {key!r} stands here twice; remove one", key_node)
            result[key] = _value(value_node)
        return result
    if isinstance(node, yaml.SequenceNode) and node.tag == _CORE + "seq":
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError as error:
            raise _problem(str(error), node) from error
    raise _problem(f"the tag {node.tag!r} is not allowed; write plain values only", node)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} is too large")
    return value


_SCALARS: dict[str, Callable[[str], Any]] = {
    _CORE + "str": str,
    _CORE + "int": int,
    _CORE + "float": _number,
    _CORE + "bool": lambda text: text.lower() == "true",
    _CORE + "null": lambda text: None,
}


def _problem(message: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)


def read(path: Path, *, shown: str) -> tuple[str, dict[str, Any]]:
    """Text of a YAML file and the mapping in it. `shown` names it in errors. SpecError when it is anything else."""
    text = _text(path, shown=shown)
    return text, parse(text, shown=shown)


def parse(text: str, *, shown: str) -> dict[str, Any]:
    """The mapping in a YAML text; see `read`."""
    try:
        _refuse_traps(text, shown=shown)
        node = yaml.compose(text, Loader=_Loader)
        data = None if node is None else _value(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        raise SpecError(_advice(problem), file=shown, line=mark.line + 1 if mark else None) from error
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"no YAML: {' '.join(str(error).split())}", file=shown) from error
    if data is None:
        raise SpecError("the file is empty; write at least one key, such as `description: ...`", file=shown, line=1)
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise SpecError(f"the file is {kind}; write keys and values, such as `description: ...`", file=shown, line=1)
    return data


def line_of(text: str, place: Sequence[str | int]) -> int | None:
    """1-based line of the key or item at `place` (as deep as it can be followed); for the way to an error only."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        return None
    line = None if node is None else node.start_mark.line + 1
    dotted = ""  # Dask's settings may be written as one key
    for part in place:
        if isinstance(node, yaml.MappingNode):
            dotted = f"{dotted}.{part}" if dotted else str(part)
            pair = next(((key, value) for key, value in node.value if key.value in (part, dotted)), None)
            if pair is None:
                continue
            dotted = ""
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _text(path: Path, *, shown: str) -> str:
    try:
        if not path.is_file():
            raise SpecError("there is no such file" if not path.exists() else "is no file", file=shown)
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SpecError(
                f"the file has {size / 1e6:.1f} MB; at most {MAX_BYTES // 1024} kB. Put data into a file of its own",
                file=shown,
            )
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise SpecError(f"the file is not UTF-8 text: {error}", file=shown) from error
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", file=shown) from error


def _refuse_traps(text: str, *, shown: str) -> None:
    """Aliases and deep nesting, before anything is built from them. Looks closer only where a trap is possible."""
    if not re.search(r"(^|[\s,\[{:])\*", text) and text.count("[") + text.count("{") < MAX_DEPTH and len(text) < 20_000:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent):
            raise SpecError(
                f"the alias *{event.anchor} is not allowed; write the value out (aliases can explode)",
                file=shown,
                line=line,
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise SpecError(f"nested deeper than {MAX_DEPTH} levels; flatten it", file=shown, line=line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _advice(problem: str) -> str:
    if "cannot start any token" in problem:
        return f'{problem}; indent with spaces, not tabs, and put text that begins with @ in quotes, as in "@daily"'
    if "another document" in problem:
        return "several documents (---) in one file; write one"
    return problem
