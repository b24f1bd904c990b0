"""Checks DAG files in another process: Airflow is imported there, never here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mayfly.errors import InputError
from mayfly.project.checks import Finding
from mayfly.project.loading import Project

MODULE = "mayfly.airflow.lint"
_TAIL = 15


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was looked at, and what was found."""

    files: int
    dags: int
    clusters: int
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What is refused; the rest are warnings."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def validate_dags(folder: str) -> tuple[list[str], bool]:
    """Lines for people, and whether nothing is refused. `folder` may be empty: the project's."""
    path = Path(folder) if folder else dag_folder(Path.cwd())
    checked = check_folder(path)
    count, refused = len(checked.findings), len(checked.errors)
    said = f"{refused} errors, {count - refused} warnings" if count else "all good"
    what = f"{checked.files} DAG files, {checked.dags} DAGs, {checked.clusters} clusters"
    return [*map(str, checked.findings), f"{what}: {said}"], not refused


def dag_folder(start: Path) -> Path:
    """The DAG folder of the project around `start`: its dags/, or the project itself where it lies in one."""
    home = Project.find(start).home
    return home / "dags" if (home / "dags").is_dir() else home


def check_folder(folder: Path, *, timeout: float = 1800.0) -> Checked:
    """Read all DAG files of `folder` (or one file) with the Airflow of this Python; `timeout` in seconds.

    InputError when there is no such folder, no DAG file in it, or no Airflow.
    """
    if not folder.exists():
        raise InputError(f"there is no DAG folder {folder}; name it: `mayfly validate --dags FOLDER`")
    here = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="mayfly-lint-") as place:
        result = Path(place) / "result.json"
        command = [sys.executable, "-m", MODULE, str(folder), "--json", str(result)]
        try:
            done = subprocess.run(
                command, env={**os.environ, "PYTHONPATH": search}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise InputError(f"the DAG files in {folder} were not read within {timeout:.0f} s") from None
        if not result.is_file():
            tail = "\n".join(done.stdout.splitlines()[-_TAIL:])
            if "No module named 'airflow'" in done.stdout:
                raise InputError(f"to check DAG files, Airflow must be installed for {sys.executable}; it is not")
            raise InputError(f"the DAG files in {folder} could not be checked (exit code {done.returncode}):\n{tail}")
        said = json.loads(result.read_text(encoding="utf-8"))
    if not said["files"]:
        raise InputError(f"no DAG file in {folder}: Airflow takes Python files that name both `dag` and `airflow`")
    said["findings"] = tuple(Finding(**one) for one in said["findings"])
    return Checked(**said)
