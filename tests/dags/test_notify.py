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

from mayfly.airflow import notify
from mayfly.airflow.factory import make_dag
from mayfly.spec.job import JobSpec, NotifySpec
from tests.dags.bags import ROOT, project

NOTIFIERS = ROOT / "tests" / "lifecycle"
TEXT = "{{ mayfly.job }} {{ mayfly.verdict }}: {{ mayfly.problems | join('; ') }}"


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
    made = project(tmp_path_factory.mktemp("notify") / "p", fails="{}", cannot="{}")
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
    }
    for name, job in jobs.items():
        (made / "jobs" / name / "job.yaml").write_text(json.dumps({"cluster": cluster, "retries": 0, **job}))
    (made / "jobs" / "fails" / "fails.py").write_text("raise SystemExit(3)\n")
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


# ---------------------------------------------------------------- without a run


def job(folder: Path, **about: Any) -> JobSpec:
    return JobSpec(name="trips", folder=folder / "jobs" / "trips", **about)


def test_only_who_wants_failures_gets_a_callback_of_the_dag(tmp_path: Path) -> None:
    def has(*on: Any) -> bool:
        specs = tuple(NotifySpec(notifier="a.B", on=each) for each in on)
        return bool(make_dag(job(tmp_path, notify=specs)).on_failure_callback)

    assert [has(), has("success"), has("failure"), has("always")] == [False, False, True, True]


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
    tell = notify.callback(job(tmp_path, notify=(spec,)), group="cluster")
    assert tell is not None
    caplog.set_level("WARNING", "airflow.task.mayfly")
    tell({"dag": SimpleNamespace(dag_id="trips"), "run_id": f"run {notifier}"})
    assert why in caplog.text
