"""`airflow dags test` as `make demo` does it: DAGs composed by hand, and arguments on their way to a script."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mayfly.contract import Plan, Receipt
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import FileStore
from tests.dags.bags import ROOT

pytestmark = pytest.mark.timeout(1200)

AWKWARD = ['it\'s "so"', "$(touch pwned)", "`x`", "a\nb\n", "ünï→码", "", " ", "--x={{ 1 + 1 }}$Y", "*", "%s", "\\"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the repository's DAGs and the job that they use; data and runs stay below it."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "dags", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "jobs" / "compose", folder / "jobs" / "compose")
    fails = folder / "jobs" / "fails"
    fails.mkdir()
    (fails / "job.yaml").write_text(json.dumps({"cluster": {"workers": 1, "worker": {"memory": "512 MB"}}}))
    (fails / "fails.py").write_text("raise SystemExit(3)\n")
    echo = folder / "jobs" / "echo"
    echo.mkdir()
    (echo / "job.yaml").write_text(
        json.dumps(
            {
                "args": [*AWKWARD, "{{ run_date }}", "{{ job }} {{ target }} {{ params.n }}", "{{ outputs.here }}"],
                "params": {"n": {"type": "integer", "default": 7}},
                "outputs": {"here": "data/echo"},
                "targets": ["local", "second"],
                "cluster": {"workers": 1, "worker": {"memory": "512 MB"}},
            }
        )
    )
    (echo / "echo.py").write_text(
        "import json, pathlib, sys\npathlib.Path(sys.argv[-1], 'args.json').write_text(json.dumps(sys.argv[1:]))\n"
    )
    (folder / "config").mkdir()
    (folder / "config" / "targets.yaml").write_text(
        json.dumps({"targets": {"local": {"backend": "local"}, "second": {"backend": "local", "prefix": "second"}}})
    )
    os.symlink(ROOT / "plugins", folder / "plugins")
    return folder


def dags_test(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return subprocess.run(
        [sys.executable, "-m", "mayfly.airflow.dagstest", *arguments],
        cwd=home,
        env={**env, "AIRFLOW_HOME": str(home / ".airflow"), "PYTHONPATH": str(ROOT / "plugins")},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def runs(home: Path, dag_id: str) -> list[tuple[Plan, Receipt | None]]:
    store = FileStore(home / ".mayfly" / "staging")
    names = {path.split("/")[1] for path in store.list("runs/")}
    found = [(RunDir(store, name).plan(), RunDir(store, name).receipt()) for name in sorted(names)]
    return [(plan, receipt) for plan, receipt in found if plan is not None and plan.identity.dag_id == dag_id]


def test_two_scripts_on_one_cluster(home: Path) -> None:
    done = dags_test(home, "compose_two_scripts")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((home / "data" / "results" / "compose" / "two-scripts" / "summary.json").read_text())
    assert summary["count"] == 80_000
    ((plan, receipt),) = runs(home, "compose_two_scripts")
    assert receipt is not None and plan.identity.group == "compose"
    assert "seed 7" in done.stdout, "the result of another task arrived"
    assert "deletion proven" in done.stdout


def test_mapped_over_clusters(home: Path) -> None:
    done = dags_test(home, "compose_many_clusters")
    assert done.returncode == 0, done.stdout + done.stderr
    found = runs(home, "compose_many_clusters")
    assert sorted(plan.identity.map_index for plan, _ in found) == [0, 1]
    assert all(receipt is not None for _, receipt in found)
    assert len({plan.name for plan, _ in found}) == 2
    for index in (0, 1):
        assert (home / "data" / "results" / "compose" / f"many-clusters-{index}" / "part-7.txt").exists()


def test_arguments_arrive_unchanged(home: Path) -> None:
    (home / "data" / "echo").mkdir(parents=True, exist_ok=True)
    done = dags_test(home, "echo", "2026-03-04")
    assert done.returncode == 0, done.stdout + done.stderr
    arrived = json.loads((home / "data" / "echo" / "args.json").read_text())
    expected = [text.replace("{{ 1 + 1 }}", "2") for text in AWKWARD]
    assert arrived[: len(AWKWARD)] == expected
    assert arrived[len(AWKWARD) :] == ["2026-03-04", "echo local 7", str(home / "data" / "echo")]
    assert not list(home.rglob("pwned"))
    assert "no task" in done.stdout.lower() or "cluster" in done.stdout


def test_a_run_chooses_its_target(home: Path) -> None:
    (home / "data" / "echo").mkdir(parents=True, exist_ok=True)
    done = dags_test(home, "echo", "2026-03-05", "-c", '{"target": "second", "n": 8}')
    assert done.returncode == 0, done.stdout + done.stderr
    arrived = json.loads((home / "data" / "echo" / "args.json").read_text())
    assert arrived[len(AWKWARD) : len(AWKWARD) + 2] == ["2026-03-05", "echo second 8"]
    before = runs(home, "echo")
    assert [receipt is not None for plan, receipt in before if plan.target.name == "second"] == [True]
    done = dags_test(home, "echo", "2026-03-06", "-c", '{"target": "third"}')
    assert done.returncode != 0
    assert "third" in done.stdout + done.stderr
    assert len(runs(home, "echo")) == len(before), "nothing was made"


def test_a_failed_run_has_exit_code_1(home: Path) -> None:
    done = dags_test(home, "fails")
    assert done.returncode == 1
    assert "user error" in done.stdout + done.stderr
    ((_, receipt),) = runs(home, "fails")
    assert receipt is not None, "deleted all the same"
