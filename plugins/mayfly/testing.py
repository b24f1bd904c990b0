"""For users' own tests. The whole of a test file that checks all DAGs of a project:

    from mayfly.testing import test_dags  # noqa: F401

It looks for the project around the test file; another folder needs a line more:

    def test_my_dags() -> None:
        check_dags("pipelines/dags")
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from mayfly.daglint.checking import check_folder, dag_folder

__all__ = ["DagWarning", "check_dags", "test_dags"]


class DagWarning(UserWarning):
    """Something about a DAG that is allowed, but hardly what its author meant."""


def check_dags(folder: str | Path) -> None:
    """AssertionError with all that is refused in the DAG files of `folder`; a DagWarning for each warning.

    Needs Airflow, in a process of its own. InputError when there is nothing to check.
    """
    checked = check_folder(Path(folder))
    for finding in checked.findings:
        if finding.severity == "warning":
            warnings.warn(str(finding), DagWarning, stacklevel=2)
    if checked.errors:
        raise AssertionError("\n".join(["these DAG files are refused:", *map(str, checked.errors)]))


def test_dags(request: Any) -> None:
    """The DAG files of the project around the test file that imports this; `request` is pytest's."""
    check_dags(dag_folder(Path(request.path).parent))
