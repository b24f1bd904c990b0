"""Who may import what, held by reading the code and by importing it in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "plugins" / "mayfly"
HEAVY = {"airflow", "dask", "distributed", "bokeh", "pandas", "numpy", "pyarrow", "google", "boto3", "skein"}

SUPERVISOR = ["mayfly.contract", "mayfly.errors", "mayfly.staging.rundir", "mayfly.failures.classify", "mayfly.driver"]
"""Runs on the cluster beside, not inside, Dask: standard library only (fsspec when a store needs it)."""
PURE = [
    "mayfly.units",
    "mayfly.spec.job",
    "mayfly.plan",
    "mayfly.states",
    "mayfly.failures.classify",
    "mayfly.report.summary",
    "mayfly.generation",
]


def fresh(code: str) -> str:
    """What `code` prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_after(module: str) -> set[str]:
    return set(fresh(f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})").split())


@pytest.mark.parametrize("module", SUPERVISOR)
def test_the_supervisor_needs_only_the_standard_library(module: str) -> None:
    foreign = {name for name in loaded_after(module) - set(sys.stdlib_module_names) if not name.startswith("_")}
    baseline = set(fresh("import sys; print(*{name.partition('.')[0] for name in sys.modules})").split())
    assert foreign - baseline <= {"mayfly", "psutil"}


@pytest.mark.parametrize("module", PURE)
def test_the_pure_core_loads_nothing_heavy(module: str) -> None:
    assert not loaded_after(module) & HEAVY


@pytest.mark.parametrize(
    "module", ["mayfly", "mayfly.cli.main", "mayfly.cli.runner", "mayfly.cli.oncall", "mayfly.steps.lifecycle"]
)
def test_the_command_line_needs_no_airflow_and_no_dask(module: str) -> None:
    assert not loaded_after(module) & HEAVY


def test_only_the_airflow_package_imports_airflow() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "airflow"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [
                f"{path.relative_to(ROOT)}:{node.lineno}" for name in names if name.partition(".")[0] == "airflow"
            ]
    assert not found


def test_reading_the_dag_files_loads_nothing_heavy() -> None:
    """A DAG file is read again and again, by every component: it builds, and imports late what it does not need to."""
    code = """
import sys, airflow.sdk
before = set(sys.modules)
sys.path.insert(0, "plugins")
import runpy, pathlib
for file in sorted(pathlib.Path("dags").glob("*.py")):
    runpy.run_path(str(file))
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    assert not set(fresh(code).split("\n")[-1].split()) & (HEAVY - {"airflow"} | {"psutil", "cryptography", "fsspec"})


def test_everything_that_is_offered_exists() -> None:
    code = "import mayfly; print(*sorted(mayfly.__all__)); [getattr(mayfly, name) for name in mayfly.__all__]"
    assert fresh(code)
