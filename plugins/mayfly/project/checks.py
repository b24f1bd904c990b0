"""What is wrong with a job although its job.yaml is right: pure checks of source code, templates and settings.

Each yields findings with a line; `mayfly.project.validate` reads the files and adds their names.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, Literal

from mayfly.contract import FrozenTarget
from mayfly.project.explain import choices
from mayfly.units import format_duration

Severity = Literal["error", "warning"]

TEMPLATE_NAMES = ("params", "inputs", "outputs", "run_date", "run_id", "job", "target")
"""What templates in args can use everywhere, with Airflow and without."""
_AIRFLOW_NAMES = """
    conn dag dag_run data_interval_end data_interval_start ds ds_nodash expanded_ti_count inlet_events inlets
    logical_date macros map_index_template outlet_events outlets prev_data_interval_end_success
    prev_data_interval_start_success prev_end_date_success prev_start_date_success reason task task_instance
    task_instance_key_str task_reschedule_count templates_dict ti triggering_asset_events ts ts_nodash
    ts_nodash_with_tz var
"""
_UNDATED = frozenset({"ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz", "logical_date"})


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a person should look at. An error will fail the job, a warning may. `line` is 1-based."""

    severity: Severity
    file: str
    message: str
    line: int | None = None
    key: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.severity, self.key, self.message) if part)


# ---------------------------------------------------------------- source code


def parse_source(source: str, *, file: str) -> tuple[ast.Module | None, Finding | None]:
    """The syntax tree, or the finding that there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the user's code, such as invalid escapes
            return ast.parse(source, filename=file), None
    except SyntaxError as error:
        text = f": {error.text.strip()}" if error.text else ""
        return None, Finding(severity="error", file=file, line=error.lineno, message=f"{error.msg}{text}")
    except (ValueError, RecursionError, MemoryError) as error:
        return None, Finding(severity="error", file=file, message=f"no Python source: {error}")


def shadowing(modules: Mapping[str, str], *, owner: Callable[[str], str]) -> Iterator[Finding]:
    """Modules of a job's folder (name and file) that hide another; `owner` tells whose it is ("" = nobody's)."""
    for name, file in modules.items():
        whose = owner(name)
        if whose:
            yield Finding(
                severity="error",
                file=file,
                message=f"hides the module {name!r} of {whose}, for everything that imports it; rename it",
            )


def local_paths(tree: ast.Module, *, file: str, exists_elsewhere: Callable[[str], str]) -> Iterator[Finding]:
    """Text in the source that is an existing path of this machine, but not of the cluster's machines.

    `exists_elsewhere` answers with the path that exists outside the job's folder, or with "".
    """
    seen: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in seen:
            seen.add(node.value)
            found = exists_elsewhere(node.value) if _may_be_path(node.value) else ""
            if found:
                yield Finding(
                    severity="warning",
                    file=file,
                    line=node.lineno,
                    message=f"{node.value!r} is a path of this machine ({found}), which a cluster does not have; name "
                    "it in job.yaml under inputs or outputs and hand it over in args, or copy it into the job's folder",
                )


def _may_be_path(text: str) -> bool:
    if not 2 < len(text) < 1024 or "/" not in text or any(c in text for c in "\n\r\t\0<>|*?{}"):
        return False
    if "://" in text and not text.startswith("file://"):
        return False
    parts = PurePosixPath(text.removeprefix("file://")).parts
    return parts[:2] not in (("/", "dev"), ("/", "proc"), ("/", "sys")) and parts not in (("/",), ("/", "tmp"))


# ---------------------------------------------------------------- templates


def template_names(tree: Any) -> set[str]:
    """The names that a parsed Jinja template reads and does not set itself.

    Not jinja2.meta's way, which refuses the filters that Airflow adds (`{{ data_interval_start | ds }}`).
    """
    from jinja2 import nodes

    names = list(tree.find_all(nodes.Name))
    return {node.name for node in names if node.ctx == "load"} - {node.name for node in names if node.ctx != "load"}


def templates(args: Iterable[str], *, known: Mapping[str, Collection[str]]) -> Iterator[tuple[int, Severity, str]]:
    """(index, severity, message) for each argument whose template cannot be filled in.

    `known` holds the names below params, inputs and outputs.
    """
    from jinja2 import Environment, TemplateSyntaxError, nodes

    environment = Environment(extensions=["jinja2.ext.do"])
    for index, text in enumerate(args):
        if not re.search(r"\{[{%#]", text):
            continue
        try:
            tree = environment.parse(text)
        except TemplateSyntaxError as error:
            yield index, "error", f"{text!r} is no template: {error.message}"
            continue
        lookups = [(node.node, node.attr) for node in tree.find_all(nodes.Getattr)]
        lookups += [
            (node.node, node.arg.value) for node in tree.find_all(nodes.Getitem) if isinstance(node.arg, nodes.Const)
        ]
        for base, name in lookups:
            if isinstance(base, nodes.Name) and base.name in known and name not in known[base.name]:
                yield index, "error", f"there is no {base.name}.{name}; {choices(str(name), known[base.name])}"
        for name in sorted(template_names(tree) - set(TEMPLATE_NAMES)):
            yield index, *_unknown_name(name)


def _unknown_name(name: str) -> tuple[Severity, str]:
    if name in _UNDATED:
        return "warning", f"{name!r} does not exist in runs started by an asset or the API; use run_date"
    if name in _AIRFLOW_NAMES.split():
        return "warning", f"{name!r} exists in Airflow only; `mayfly run` cannot fill it in"
    return "error", f"unknown name {name!r}; {choices(name, TEMPLATE_NAMES)}"


# ---------------------------------------------------------------- settings


def dask_settings(settings: Mapping[str, Any], *, known: Collection[str]) -> Iterator[tuple[str, str]]:
    """(dotted key, message) for each Dask setting that looks like a misspelt one. Unknown keys are allowed: Dask's own
    list is not complete, and extensions have theirs."""
    names = {_canonical(key): key for key in known}
    parents = {key.rsplit(".", depth)[0] for key in names for depth in range(1, key.count(".") + 1)}
    for key in flat(settings):
        name = _canonical(key)
        if name in names or name in parents or any(name.startswith(f"{leaf}.") for leaf in names):
            continue
        near = get_close_matches(name, names, n=1, cutoff=0.8)
        if near:
            yield key, f"Dask knows no setting {key!r}; did you mean {names[near[0]]!r}?"


_THRESHOLDS = ("target", "spill", "pause", "terminate")


def thresholds(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(dotted key, message) for memory thresholds of workers that are no shares, or act in the wrong order."""
    memory = settings
    for part in ("distributed", "worker", "memory"):
        inner = memory.get(part)
        if not isinstance(inner, Mapping):
            return
        memory = inner
    shares = {}
    for name in _THRESHOLDS:
        value = memory.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1:
            shares[name] = value
        elif name in memory and value is not False:
            yield f"distributed.worker.memory.{name}", f"{value!r} is no share; write one as in 0.7, or false for never"
    for first, then in pairwise(shares):
        if shares[first] > shares[then]:
            message = f"{first} ({shares[first]:g}) comes after {then} ({shares[then]:g}), so it never acts"
            yield f"distributed.worker.memory.{first}", message


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of all leaves."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _canonical(key: str) -> str:
    return key.replace("_", "-").lower()


def secrets(env: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, message) for variables that look like secrets: `env` is part of the plan, which everybody can read."""
    for name in env:
        if re.search(r"PASSWORD|PASSWD|SECRET|TOKEN|PRIVATE_KEY|API_?KEY|CREDENTIAL", name, re.IGNORECASE):
            yield name, "looks like a secret, and env is readable in plan and report; let the job fetch it itself"


def target(target: FrozenTarget, *, runs: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """(dotted key, message) for what will probably go wrong on a target. `runs` = whether a command can be started
    on this machine."""
    timing = target.timing
    slowest = max(every for _, every in timing.poll)
    if timing.lease_ttl < 10 * slowest:
        given, interval = format_duration(timing.lease_ttl), format_duration(slowest)
        message = f"{given} is less than ten poll intervals ({interval}): a slow Airflow would end healthy jobs"
        yield "timing.lease_ttl", message
    if target.backend == "local" and target.python is not None and not runs(target.python):
        yield "python", f"{target.python!r} cannot be started on this machine"
