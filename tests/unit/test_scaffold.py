from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
import yaml

from mayfly.errors import InputError
from mayfly.project.loading import Project
from mayfly.project.scaffold import create_job, new_job
from mayfly.project.validate import check_project
from mayfly.spec.schemas import schemas


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "config").mkdir()
    return Project(tmp_path)


def test_writes_a_valid_job(project: Project) -> None:
    written = new_job(project, "trips")
    folder = project.home / "jobs" / "trips"
    assert written[:2] == [folder / "job.yaml", folder / "trips.py"]
    job = project.job("trips")
    assert job.script == "trips.py"
    assert job.target == "local"
    assert check_project(project) == []


def test_the_file_satisfies_the_schema_named_in_its_first_line(project: Project) -> None:
    path = new_job(project, "trips")[0]
    first, text = path.read_text().split("\n", 1)
    schema = path.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert schema.read_text() == schemas()["job.schema.json"]
    jsonschema.validate(yaml.safe_load(text), yaml.safe_load(schema.read_text()))


def test_tells_what_to_do_next(project: Project) -> None:
    lines = create_job(project, "trips")
    assert lines[0] == "wrote jobs/trips/job.yaml"
    assert any("mayfly run trips" in line for line in lines)
    assert any("python -m mayfly.airflow.dagstest trips" in line for line in lines), "needs no AIRFLOW_HOME"


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("daily-trips", "daily_trips.py"),
        ("my_job", "my_job.py"),
        ("statistics", "statistics_job.py"),
        ("dask", "dask_job.py"),
    ],
)
def test_the_script_hides_no_module(project: Project, name: str, script: str) -> None:
    assert new_job(project, name)[1].name == script
    assert check_project(project) == []


@pytest.mark.parametrize("name", ["Trips", "", "../trips", "a b", "x" * 34, "trips.py", "1st"])
def test_bad_names(project: Project, name: str) -> None:
    with pytest.raises(InputError):
        new_job(project, name)
    assert list((project.home / "jobs").iterdir()) == []


def test_names_that_are_taken(project: Project) -> None:
    new_job(project, "my-job")
    with pytest.raises(InputError, match="exists already"):
        new_job(project, "my-job")
    with pytest.raises(InputError, match="same cluster names as job 'my-job'"):
        new_job(project, "my_job")
    (project.home / "jobs" / "notes").mkdir()
    with pytest.raises(InputError, match="exists already"):
        new_job(project, "notes")
    assert list((project.home / "jobs" / "notes").iterdir()) == []


def test_a_project_without_local_gets_its_first_target(project: Project) -> None:
    (project.home / "config" / "targets.yaml").write_text("targets:\n  edge: {backend: local}\n")
    new_job(project, "trips")
    assert project.job("trips").target == "edge"


def test_the_script_runs_as_it_is(project: Project, tmp_path: Path) -> None:
    script = new_job(project, "trips")[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(tmp_path / "out"), "--days", "3"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "out")
    assert table["trips"].sum() == 30_000
    assert list(table["hour"]) == list(range(24))
    assert "distance_km" in done.stdout
