"""Waiting in the triggerer: nobody's worker slot is held, and neither a mark nor a killed triggerer hurts the run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mayfly.airflow.standalone import Stack
from tests.lifecycle.airflow_api import Api, Run
from tests.lifecycle.test_verdicts import OURS, Live
from tests.processes import end

pytestmark = pytest.mark.timeout(1500)


@dataclass
class Waiting:
    live: Live
    goes_on: Run
    marked: Run
    quick: Run
    wrong: Run


@pytest.fixture(scope="module")
def waiting(stack: Stack, told: dict[str, Run]) -> Waiting:
    """Two runs whose jobs are deferred and have been seen working, and two that end meanwhile."""
    api = Api(stack)
    runs = [api.trigger("patient"), api.trigger("patient")]
    others = [api.trigger("quick", target="deferred"), api.trigger("wrong", target="deferred")]
    live = Live(api, stack.project, {})
    for run in runs:
        api.until(lambda run=run: run.tasks().get("run_job") == "deferred", "a deferred job")
    return Waiting(live, *runs, *others)


def log_shows(waiting: Waiting, run: Run, text: str) -> None:
    waiting.live.api.until(lambda: text in run.log("run_job"), f"{text!r} in the task log")


def heard(project: Path, cluster: str) -> dict[str, str]:
    """Who told how this cluster's run ended, by the notifier's `on`."""
    lines = [json.loads(line) for path in project.glob("heard-*.jsonl") for line in path.read_text().splitlines()]
    mine = [line for line in lines if line["cluster"] == cluster]
    assert len({line["text"] for line in mine}) == len(mine), "each notifier tells once"
    return {line["text"]: line["by"] for line in mine}


def test_a_deferred_job_shows_its_log(waiting: Waiting) -> None:
    log_shows(waiting, waiting.marked, "waiting by deferring to the triggerer: the target says so")
    log_shows(waiting, waiting.marked, "still here: 3")
    # A trigger whose driver was silent for a while wakes the task; it goes on to wait.
    waiting.live.api.until(lambda: waiting.marked.tasks()["run_job"] == "deferred", "a deferred job")


def test_marked_failed_while_deferred(waiting: Waiting) -> None:
    live, run = waiting.live, waiting.marked
    rundir = live.only(run)
    run.mark("failed")
    assert run.end() == "failed"
    tasks = run.tasks()
    assert (tasks["delete_cluster"], tasks["report"]) == ("success", "failed")
    assert live.receipt(rundir) and live.none_left(rundir)
    record = rundir.attempt("run_job", 1).record()
    assert record is not None and record.outcome == "cancelled"
    assert live.times_run(rundir) == 0
    assert heard(live.project, rundir.name) == {"failure": "cluster.report", "always": "cluster.report"}


def test_triggerer_killed_and_restarted(waiting: Waiting, stack: Stack) -> None:
    live, run = waiting.live, waiting.goes_on
    rundir = live.only(run)
    attempt = rundir.attempt("run_job", 1)
    # The line that is counted below is there, and its place in the log is noted: what a triggerer has shown in the
    # moment of its death may be shown again.
    log_shows(waiting, run, "still here: 3")
    seen = attempt.lease()
    assert seen is not None
    live.api.until(lambda: (now := attempt.lease()) and now.seq > seen.seq + 1, "a renewed lease")
    old = psutil.Process(stack.processes["triggerer"].pid)
    for process in [*old.children(recursive=True), old]:
        end(process)
    stack.processes["triggerer"].wait()
    lease = attempt.lease()
    assert lease is not None
    stack.start(("triggerer",))
    live.api.until(lambda: (now := attempt.lease()) and now.seq > lease.seq + 2, "a renewed lease")
    (stack.project / "data" / "marks" / f"go-{rundir.name}").touch()
    assert run.end() == "success"
    assert run.tasks() == dict.fromkeys(OURS, "success")
    assert live.times_run(rundir) == 1
    assert rundir.last_attempt("run_job") == 1
    assert live.receipt(rundir) and live.none_left(rundir)
    shown = run.log("run_job")
    assert shown.count("still here: 2\n") + shown.count("still here: 2 ") == 1, "no line is lost or shown twice"
    assert "run_job: success in" in shown
    assert heard(live.project, rundir.name) == {"success": "cluster.report", "always": "cluster.report"}


DEFERS = "waiting by deferring to the triggerer"


def test_all_ok_and_whole_run_cleared(waiting: Waiting) -> None:
    live, run = waiting.live, waiting.quick
    assert run.end() == "success"
    assert run.tasks() == dict.fromkeys(OURS, "success")
    assert DEFERS in run.log("run_job")
    run.clear()
    live.api.until(lambda: len(live.generations(run)) == 2, "a second generation")
    assert run.end() == "success"
    first, second = (rundir for rundir, _ in live.generations(run))
    assert [live.times_run(rundir) for rundir in (first, second)] == [1, 1]
    assert [live.receipt(rundir).generation for rundir in (first, second)] == [1, 2]
    assert live.none_left(first) and live.none_left(second)


def test_job_fails_and_is_cleared_alone(waiting: Waiting) -> None:
    """What Airflow clears with it differs, see the same row of those that wait otherwise."""
    live, run = waiting.live, waiting.wrong
    assert run.end() == "failed"
    tasks = run.tasks()
    assert (tasks["run_job"], tasks["collect_metrics"], tasks["delete_cluster"]) == ("failed", "success", "success")
    assert DEFERS in run.log("run_job")
    assert "invalid literal for int()" in run.log("run_job", run.tries("run_job"))
    cleared = run.clear_tasks("cluster.run_job")
    assert run.end() == "failed"
    generations = live.generations(run)
    assert len(generations) == (2 if "plan" in cleared else 1)
    for rundir, _ in generations:
        assert rundir.last_attempt("run_job") == 1
        assert live.receipt(rundir) and live.none_left(rundir)
