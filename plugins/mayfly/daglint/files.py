"""What the DAG lint says about whole files: unreadable ones, and those that do more than build DAGs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mayfly.daglint.facts import Dag, DagFile, Deed, Task
from mayfly.daglint.rules import RULES
from mayfly.project.checks import Finding, Severity

MAX_CPU_S = 5.0
"""Airflow reads every file again and again in every component; it gives up after 30 s."""


def findings(file: DagFile) -> list[Finding]:
    """All that is to be said about one DAG file, in order of its lines."""
    found = [*_unreadable(file), *_parsing(file)]
    for dag in file.dags:
        if dag.clusters:
            for rule in RULES:
                found += [_at(file, dag, *parts) for parts in rule(dag)]
    return sorted(dict.fromkeys(found), key=lambda one: one.line or 0)


def _at(file: DagFile, dag: Dag, severity: Severity, about: Task | str | None, message: str) -> Finding:
    if isinstance(about, Task):
        line, key = about.line, f"{dag.dag_id}.{about.task_id}"
    else:
        line, key = file.lines.get(about or "", dag.line), dag.dag_id
    return Finding(severity=severity, file=file.file, line=line or dag.line, key=key, message=message)


def _unreadable(file: DagFile) -> Iterator[Finding]:
    if not file.error:
        return
    last = _last_words(file.error)
    advice = ""
    if "must be followed with trigger rule ALL_SUCCESS" in last:
        advice = "; a task directly after plan or create_cluster has another trigger rule"
    yield Finding(
        severity="error",
        file=file.file,
        line=file.error_line,
        message=f"Airflow cannot read this file, and shows none of its DAGs: {last}{advice}",
    )


def _last_words(error: str) -> str:
    """The exception itself, without the traceback before it."""
    lines = error.strip().splitlines()
    frames = [index for index, line in enumerate(lines) if re.match(r"\s", line) or line.startswith("Traceback ")]
    words = lines[frames[-1] + 1 :] if frames and frames[-1] + 1 < len(lines) else lines[-1:]
    return "\n".join(words).strip()


def _parsing(file: DagFile) -> Iterator[Finding]:
    ours = file.uses_mayfly or any(dag.clusters for dag in file.dags)
    severity: Severity = "error" if ours else "warning"

    def say(deed: Deed, message: str) -> Finding:
        return Finding(severity=severity, file=file.file, line=deed.line, message=message)

    for deed in file.imports:
        through = f" (through {deed.where})" if deed.where else ""
        yield say(
            deed,
            f"imports {deed.what}{through} while the file is read, and Airflow reads it every few seconds, in every "
            "component and every task; import it inside the function that needs it",
        )
    for deed in file.work:
        through = f" (in {deed.where})" if deed.where else ""
        yield say(
            deed,
            f"{deed.what}{through} while the file is read, so again and again, whether or not anything runs; a DAG "
            "file only builds DAGs: do it in a task",
        )
    if file.cpu_s > MAX_CPU_S:
        yield say(
            Deed(what="works"),
            f"takes {file.cpu_s:.1f} s of CPU time to read; {MAX_CPU_S:.0f} s are allowed here, and Airflow gives up "
            "after 30 s; do the work in tasks, or spread the DAGs over several files",
        )
