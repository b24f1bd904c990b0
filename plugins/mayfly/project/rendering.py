"""How a job's arguments become the strings that the script sees.

Only a string that holds a template is touched at all: quotes, `$()`, newlines and any other text arrive unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from mayfly.errors import InputError

_TEMPLATE = re.compile(r"\{\{|\{%|\{#")


def is_template(text: str) -> bool:
    return _TEMPLATE.search(text) is not None


def render(text: str, context: Mapping[str, Any], environment: Any) -> str:
    """`text` with its templates filled in, by a Jinja environment; a trailing newline stays."""
    if not is_template(text):
        return text
    environment.keep_trailing_newline = True
    return str(environment.from_string(text).render(context))


def run_date(dag_run: Any) -> str:
    """`{{ run_date }}`: the day of the data interval, else of the trigger, as YYYY-MM-DD in UTC.

    Runs started by an asset or by the API have no logical date, so that `{{ ds }}` fails in them.
    """
    moment = dag_run.logical_date or dag_run.run_after
    return f"{moment:%Y-%m-%d}"


def as_arguments(rendered: Any, *, job: str) -> tuple[str, ...]:
    """Rendered arguments as strings: text as it is, lists and objects (results of other tasks) as JSON."""
    if isinstance(rendered, str) or not isinstance(rendered, (list, tuple)):
        raise InputError(f"job {job!r}: args must be a list of strings, got {type(rendered).__name__}")
    return tuple(_argument(value, place=f"job {job!r}: args[{i}]") for i, value in enumerate(rendered))


def _argument(value: Any, *, place: str) -> str:
    if isinstance(value, str):
        if "\0" in value:
            raise InputError(f"{place}: holds a NUL character, which no program can be given")
        return value
    if value is None:
        raise InputError(f"{place}: is None (a task that returned nothing?); give a value or leave it out")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, tuple, dict)) else str(value)


class Names:
    """`{{ inputs.flights }}`: named values for templates, looked up when first used; a wrong name lists the right ones.

    No plain dictionary: Jinja would answer `inputs.items` with the method.
    """

    def __init__(self, kind: str, load: Callable[[], Mapping[str, str]]) -> None:
        self._kind, self._load = kind, load

    def __getattr__(self, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> str:
        known = self._load()
        if name not in known:
            what = f"{{{{ {self._kind}.{name} }}}}: no such {self._kind[:-1]}"
            raise InputError(f"{what}; known: {', '.join(known) or 'none'}")
        return known[name]
