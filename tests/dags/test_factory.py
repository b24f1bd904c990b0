"""jobs/*/job.yaml become DAGs, each on its own account."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mayfly.airflow.factory import BrokenJobs, build_dags, make_dag, raise_broken_jobs
from mayfly.project.loading import Project
from tests.dags.bags import ROOT, load, project, serialized

FULL = """
    description: |
      Trips of the **city**.

      More of it.
    owner: data-team
    tags: [b, a]
    schedule: "0 6 * * 1-5"
    start_date: "2026-01-31"
    catchup: true
    max_active_runs: 3
    args: ["{{ params.month }}"]
    params:
      month: {type: integer, title: Month, minimum: 1, maximum: 12, default: 1}
      note: {type: [string, "null"], default: null}
    targets: [local, big]
    inputs: {trips: "gs://bucket/trips", local: data/ünï}
    outputs: {stats: "gs://bucket/stats"}
    timeout: 90m
    retries: 2
"""


def full(folder: Path) -> Path:
    home = project(folder / "p", full=FULL, plain="{}", after="schedule: {assets: ['gs://bucket/stats']}")
    (home / "config" / "targets.yaml").write_text("targets: {local: {backend: local}, big: {backend: local}}\n")
    return home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return full(tmp_path)


def dags(home: Path) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__file__": str(home / "dags" / "jobs.py")}
    build_dags(namespace)
    return namespace


def test_a_job_becomes_a_dag(home: Path) -> None:
    dag = dags(home)["full"]
    assert (dag.dag_id, dag.description, dag.max_active_runs, dag.catchup) == (
        "full",
        "Trips of the **city**.",
        3,
        True,
    )
    assert dag.start_date.isoformat().startswith("2026-01-31T00:00:00")
    assert set(dag.tags) == {"a", "b", "mayfly"}
    assert {task.owner for task in dag.tasks} == {"data-team"}
    assert "More of it." in dag.doc_md and "run 1 h 30 min" in dag.doc_md
    job = dag.get_task("cluster.run_job")
    assert [asset.uri for asset in job.outlets] == ["gs://bucket/stats"]
    assert [asset.uri for asset in job.inlets] == ["gs://bucket/trips"], "Airflow takes ASCII names alone"
    assert dag.get_task("cluster.plan").target == "{{ params.target }}"


def test_params_are_the_trigger_form(home: Path) -> None:
    params = dags(home)["full"].params
    assert params.get_param("target").schema["enum"] == ["local", "big"]
    assert list(params) == ["target", "month", "note"]
    month = params.get_param("month")
    assert (month.schema["minimum"], month.schema["maximum"], month.value, month.schema["title"]) == (1, 12, 1, "Month")
    assert params.get_param("note").schema["type"] == ["string", "null"]


def test_a_job_with_one_target_does_not_ask_for_it(home: Path) -> None:
    dag = dags(home)["plain"]
    assert not dag.params and dag.get_task("cluster.plan").target == "local"
    assert dag.is_paused_upon_creation is False, "nothing runs by itself"


def test_scheduled_by_assets(home: Path) -> None:
    dag = dags(home)["after"]
    assert "gs://bucket/stats" in json.dumps(serialized(dag))


def test_a_required_param(tmp_path: Path) -> None:
    home = project(tmp_path / "p", asks="params: {day: {type: string, format: date}}")
    dag = dags(home)["asks"]
    assert list(dag.params) == ["day"]
    dag.validate()


BROKEN = """
    cluster:
      workres: 3
"""


def test_broken_jobs_are_one_import_error_and_all_others_load(tmp_path: Path) -> None:
    home = project(tmp_path / "p", good="{}", typo=BROKEN, unit="timeout: 90 minuets", other="{}")
    bag = load(home / "dags")
    assert set(bag.dags) == {"good", "other"}
    ((file, error),) = bag.import_errors.items()
    assert file.endswith("broken_jobs.py"), "an import error of jobs.py would take all its DAGs"
    for words in ("jobs/typo/job.yaml:3", "cluster.workres", "workers", "jobs/unit/job.yaml", "timeout"):
        assert words in error


def test_no_import_error_when_all_is_well(home: Path) -> None:
    bag = load(home / "dags")
    assert not bag.import_errors
    assert set(bag.dags) == {"full", "plain", "after"}


def test_what_airflow_refuses_breaks_that_job_alone(tmp_path: Path) -> None:
    name = "x" * 1600
    home = project(tmp_path / "p", good="{}", long=f"outputs: {{o: {name}}}")
    namespace: dict[str, Any] = {"__file__": str(home / "dags" / "jobs.py")}
    build_dags(namespace)
    assert "good" in namespace and "long" not in namespace
    with pytest.raises(BrokenJobs, match="Airflow refuses it"):
        raise_broken_jobs(namespace)


def test_broken_targets_are_shown_and_jobs_stay(tmp_path: Path) -> None:
    home = project(tmp_path / "p", good="{}")
    (home / "config" / "targets.yaml").write_text("targets: {local: {backned: local}}\n")
    bag = load(home / "dags")
    assert set(bag.dags) == {"good"}
    assert "config/targets.yaml" in next(iter(bag.import_errors.values()))


def test_jobs_inside_the_dag_folder_are_no_dag_files(tmp_path: Path) -> None:
    home = project(tmp_path / "p", good="{}")
    for folder in ("jobs", "config"):
        (home / folder).rename(home / "dags" / folder)
    (home / "dags" / "jobs" / "good" / "good.py").write_text("raise SystemExit('from airflow import DAG')\n")
    bag = load(home / "dags")
    assert not bag.import_errors
    assert set(bag.dags) == {"good"}


def in_subprocess(code: str, home: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": f"{ROOT}/plugins:{Path(__file__).parent}", "HOME_": str(home), **env},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_serialisation_is_stable(home: Path) -> None:
    """Anything that changes between two parses makes a new DAG version for each run."""
    code = """if True:
        import json, os
        from pathlib import Path
        from bags import load, serialized
        bag = load(Path(os.environ["HOME_"]) / "dags")
        print(json.dumps({name: serialized(dag) for name, dag in sorted(bag.dags.items())}))
    """
    one, other = (in_subprocess(code, home, PYTHONHASHSEED=seed).splitlines()[-1] for seed in ("1", "2"))
    # Their place among two sets is Airflow's own: it sorts them itself before it compares versions.
    assert canonical(json.loads(one)) == canonical(json.loads(other))


def canonical(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("__type") == "set":
            return sorted(json.dumps(item) for item in value["__var"])
        return {key: canonical(item) for key, item in value.items() if key not in ("fileloc", "_processor_dags_folder")}
    return [canonical(item) for item in value] if isinstance(value, list) else value


def test_parsing_is_pure(home: Path) -> None:
    """It opens nothing but code, jobs/ and config/, and imports nothing heavy."""
    code = """if True:
        import os, runpy, sys
        import airflow.sdk
        import croniter  # Airflow's; asks `file` about the interpreter when imported
        from airflow.sdk import DAG, Asset, Param, TaskGroup, BaseOperator, BaseOperatorLink, get_parsing_context
        Asset("gs://first/of/its/kind")  # Airflow then imports what Google's provider has to say of such addresses
        home = os.environ["HOME_"]
        before = set(sys.modules)
        opened, connected = [], []
        def watch(event, args):
            if event == "open" and isinstance(args[0], str):
                opened.append(args[0])
            if event in ("socket.connect", "subprocess.Popen"):
                connected.append(event)
        sys.addaudithook(watch)
        runpy.run_path(home + "/dags/jobs.py")
        runpy.run_path(home + "/dags/broken_jobs.py")
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        heavy = new & {"dask", "distributed", "pandas", "numpy", "pyarrow", "google", "boto3", "fsspec", "bokeh"}
        assert not heavy, heavy
        assert not connected, connected
        code = tuple({os.path.realpath(path) for path in sys.path if path} | {sys.prefix, sys.base_prefix})
        foreign = {
            path for path in map(os.path.realpath, opened)
            if not path.startswith((home + "/jobs", home + "/config", home + "/dags", *code))
        }
        assert not foreign, foreign
    """
    in_subprocess(code, home)


def test_a_task_parses_its_own_job_alone(home: Path) -> None:
    code = """if True:
        import os, runpy
        found = runpy.run_path(os.environ["HOME_"] + "/dags/jobs.py")
        print(sorted(name for name in found if name in ("full", "plain", "after")))
        runpy.run_path(os.environ["HOME_"] + "/dags/broken_jobs.py")
    """
    (home / "jobs" / "after" / "job.yaml").write_text("broken: now\n")
    guard = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "plain", "_AIRFLOW_PARSING_CONTEXT_TASK_ID": "cluster.plan"}
    assert in_subprocess(code, home, **guard).strip() == "['plain']"


@pytest.mark.parametrize("file", ["targets", "profiles"])
def test_a_task_survives_a_broken_configuration(home: Path, file: str) -> None:
    """A deploy in mid-run must not keep a cluster from being deleted."""
    code = """if True:
        import os, runpy
        print("full" in runpy.run_path(os.environ["HOME_"] + "/dags/jobs.py"))
    """
    (home / "config" / "profiles.yaml").write_text("profiles: {etl: {worker: {cores: 1}}}\n")
    (home / "jobs" / "full" / "job.yaml").write_text(FULL + "    cluster: {profile: etl}\n")
    (home / "config" / f"{file}.yaml").write_text("nothing of it\n")
    printed = in_subprocess(code, home, _AIRFLOW_PARSING_CONTEXT_DAG_ID="full")
    assert printed.split()[-1] == "True"  # before it, perhaps, what Airflow says of a provider


def test_the_repositorys_own_dags_load() -> None:
    bag = load(ROOT / "dags")
    assert not bag.import_errors
    assert {"flights", "compose", "compose_two_scripts", "compose_many_clusters"} <= set(bag.dags)


def test_many_jobs_parse_quickly(tmp_path: Path) -> None:
    """Not a benchmark: a parse that did something dear for each job would take minutes."""
    home = project(tmp_path / "p", **{f"job-{i}": "{}" for i in range(50)})
    assert len([dag for dag in map(make_dag, Project(home).jobs()[0].values()) if dag]) == 50
