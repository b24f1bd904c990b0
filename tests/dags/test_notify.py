"""`notify:`: whoever asked is told once how a run ended, and no notifier changes the verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from mayfly.airflow import notify
from mayfly.airflow.factory import make_dag
from mayfly.airflow.members import Job, Members
from mayfly.airflow.taskgroup import dask_cluster
from mayfly.spec.job import JobSpec, NotifySpec
from tests.dags.bags import ROOT, project, serialized

NOTIFIERS = ROOT / "tests" / "lifecycle"
TEXT = "{{ mayfly.job }} {{ mayfly.verdict }}: {{ mayfly.problems | join('; ') }}"


COMPOSED = """
from airflow.sdk import DAG, task_group
from mayfly import dask_cluster

def own(context):
    with open({line!r}, "a") as file:
        file.write("own\\n")

with DAG("composed", schedule=None, on_failure_callback=own):
    @task_group
    def each(code):
        with dask_cluster("exits") as cluster:
            cluster.run(args=[code])

    each.expand(code=["0", "3"])
"""


def entry(home: Path, name: str, on: str, cls: str = "WritesLine", **args: str) -> dict[str, Any]:
    return {"notifier": f"notifiers.{cls}", "on": on, "args": {"file": str(home / f"{name}.jsonl"), **args}}


def told(home: Path, name: str) -> list[dict[str, Any]]:
    path = home / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def dags_test(home: Path, job: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return subprocess.run(
        [sys.executable, "-m", "mayfly.airflow.dagstest", job],
        cwd=home,
        env={
            **env,
            "AIRFLOW_HOME": str(home / ".airflow"),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "plugins"), str(NOTIFIERS)]),
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = project(tmp_path_factory.mktemp("notify") / "p", fails="{}", cannot="{}", exits="{}")
    cluster = {"workers": 1, "worker": {"memory": "512 MB"}}
    jobs: dict[str, Any] = {
        "fails": {
            "notify": [
                entry(made, "refused", "failure", "Refuses", text=TEXT),
                entry(made, "fails-failure", "failure", text=TEXT),
                entry(made, "fails-success", "success"),
            ]
        },
        "cannot": {"script_memory": "900 TB", "notify": [entry(made, "cannot", "failure", text=TEXT)]},
        "exits": {"notify": [entry(made, "exits", "failure", "Refuses", text=TEXT)]},
    }
    for name, job in jobs.items():
        (made / "jobs" / name / "job.yaml").write_text(json.dumps({"cluster": cluster, "retries": 0, **job}))
    (made / "jobs" / "fails" / "fails.py").write_text("raise SystemExit(3)\n")
    (made / "jobs" / "exits" / "exits.py").write_text("import sys\nraise SystemExit(int(sys.argv[1]))\n")
    (made / "dags" / "composed.py").write_text(COMPOSED.format(line=str(made / "own.txt")))
    os.symlink(ROOT / "plugins", made / "plugins")
    return made


@pytest.mark.timeout(600)
def test_failure_is_told_by_report_and_a_refused_message_by_the_callback(home: Path) -> None:
    done = dags_test(home, "fails")
    assert done.returncode == 1
    (line,) = told(home, "fails-failure")
    assert (line["by"], line["verdict"]) == ("cluster.report", "failed")
    assert line["text"].startswith("fails failed: job run_job is failed: user error")
    assert line["cluster"] and line["cluster"] in line["run_directory"]
    assert Path(line["report"]).exists()
    assert "deleted" in line["receipt"]
    assert line["url"].startswith("http") and "/mayfly/report/fails/cluster/-1/" in line["url"]
    assert told(home, "fails-success") == []
    (late,) = told(home, "refused")
    assert late["by"] == "callback"
    assert "no mail today" in done.stdout, "a failing notifier is logged"


@pytest.mark.timeout(600)
def test_a_plan_that_fails_for_good_tells(home: Path) -> None:
    done = dags_test(home, "cannot")
    assert done.returncode == 1
    (line,) = told(home, "cannot")
    assert (line["by"], line["verdict"], line["cluster"]) == ("cluster.plan", "failed", "")
    assert "script_memory" in line["text"]


@pytest.mark.timeout(600)
def test_the_callback_tells_in_a_dag_of_ones_own_too(home: Path) -> None:
    """Report's message was refused. Of two clusters in one DAG only the one that failed is told of."""
    done = dags_test(home, "composed")
    assert done.returncode == 1
    (line,) = told(home, "exits")
    assert (line["by"], line["verdict"]) == ("callback", "failed")
    assert line["cluster"] and line["cluster"] in line["run_directory"]
    assert "deleted" in line["receipt"]
    assert "/mayfly/report/composed/each/1/" in line["url"]
    assert (home / "own.txt").read_text() == "own\n", "the author's own callback is called as well"


# ---------------------------------------------------------------- without a run


def job(folder: Path, **about: Any) -> JobSpec:
    return JobSpec(name="trips", folder=folder / "jobs" / "trips", **about)


def test_only_who_wants_failures_gets_a_callback_of_the_dag(tmp_path: Path) -> None:
    def has(*on: Any) -> bool:
        specs = tuple(NotifySpec(notifier="a.B", on=each) for each in on)
        return bool(make_dag(job(tmp_path, notify=specs)).on_failure_callback)

    assert [has(), has("success"), has("failure"), has("always")] == [False, False, True, True]


def test_each_group_adds_its_callback_to_the_authors_own(tmp_path: Path) -> None:
    def own(context: Any) -> None: ...

    spec = NotifySpec(notifier="a.B", on="failure")
    for given in (None, own, [own]):
        with DAG("d", schedule=None, on_failure_callback=given) as dag:
            for name, who in (("a", (spec,)), ("b", ()), ("c", (spec,))):
                with dask_cluster(job(tmp_path, notify=who), group_id=name) as cluster:
                    cluster.run()
        found = dag.on_failure_callback
        assert isinstance(found, list) and len(found) == (3 if given else 2)
        assert found[0] is own or given is None
        assert serialized(dag)["dag"]["has_on_failure_callback"]


def test_only_clusters_that_did_not_end_well_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(NOTIFIERS))
    states = {
        0: {"plan": "success", "run_job": "success", "report": "success"},
        1: {"plan": "success", "run_job": "failed", "report": "failed"},
        2: {"plan": "skipped", "run_job": "skipped", "report": "skipped"},
        3: {"plan": "failed", "run_job": "upstream_failed", "report": "upstream_failed"},
    }
    airflow = {f"each.{name}_{index}": state for index, each in states.items() for name, state in each.items()}
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(lambda **which: {"run 9": airflow}))
    spec = NotifySpec(**entry(tmp_path, "some", "failure", text=TEXT))
    members = Members(group_id="each", mapped=True, jobs={"run_job": Job(retries=0, timeout=None, may_skip=False)})
    notify.callback(job(tmp_path, notify=(spec,)), members)({"dag": SimpleNamespace(dag_id="d"), "run_id": "run 9"})
    texts = [line["text"] for line in told(tmp_path, "some")]
    assert [text.split(":")[1].split(";")[0] for text in texts] == [" report is failed", " plan is failed"]


@pytest.mark.parametrize(
    "notifier, args, why",
    [
        ("nowhere.Mail", {}, "No module named"),
        ("pathlib.Path", {}, "no notifier of Airflow"),
        ("notifiers.Nobody", {}, "Nobody"),
        ("notifiers.WritesLine", {"color": "red"}, "file"),
        ("notifiers.Hangs", {"file": "x"}, "longer than"),
    ],
)
def test_a_notifier_that_cannot_be_called_is_logged(
    notifier: str,
    args: dict[str, Any],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.syspath_prepend(str(NOTIFIERS))
    if "longer" in why:
        monkeypatch.setattr(notify, "SECONDS", 0.2)
    spec = NotifySpec(notifier=notifier, args=args)
    members = Members(group_id="cluster", mapped=False)
    tell = notify.callback(job(tmp_path, notify=(spec,)), members)
    caplog.set_level("WARNING", "airflow.task.mayfly")
    tell({"dag": SimpleNamespace(dag_id="trips"), "run_id": f"run {notifier}"})
    assert why in caplog.text
