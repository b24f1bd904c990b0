"""The verdict rows under a real scheduler: whatever happens to a run, its end is judged and its cluster is gone.

All runs are started first and go on side by side; each test then waits for its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mayfly.airflow.standalone import Stack
from mayfly.contract import Phase, Plan, Receipt
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import FileStore
from tests.lifecycle.airflow_api import Api, Run
from tests.processes import of_cluster

pytestmark = pytest.mark.timeout(1500)

OURS = {"plan", "create_cluster", "run_job", "collect_metrics", "delete_cluster", "report"}
GONE_SECONDS = 120.0


@dataclass
class Live:
    """The runs under way, and the project they run in."""

    api: Api
    project: Path
    runs: dict[str, Run]

    @property
    def store(self) -> FileStore:
        return FileStore(self.project / ".mayfly" / "staging")

    def generations(self, run: Run) -> list[tuple[RunDir, Plan]]:
        """Run directories of one DAG run, by generation."""
        names = sorted({path.split("/")[1] for path in self.store.list("runs/")})
        found = [(rundir, plan) for rundir in (RunDir(self.store, name) for name in names) if (plan := rundir.plan())]
        mine = [(rundir, plan) for rundir, plan in found if plan.identity.run_id == run.run_id]
        return sorted((item for item in mine if item[1].identity.dag_id == run.dag_id), key=lambda x: x[1].generation)

    def only(self, run: Run) -> RunDir:
        ((rundir, _),) = self.generations(run)
        return rundir

    def times_run(self, rundir: RunDir) -> int:
        """How often the script came to its end on this cluster."""
        return len(list((self.project / "data" / "marks" / rundir.name).glob("*")))

    def processes(self, rundir: RunDir) -> list[psutil.Process]:
        return of_cluster(rundir.name)

    def none_left(self, rundir: RunDir) -> bool:
        deadline = time.monotonic() + GONE_SECONDS
        while (left := self.processes(rundir)) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not left, f"still running for {rundir.name}: {left}"
        return True

    def receipt(self, rundir: RunDir) -> Receipt:
        receipt = rundir.receipt()
        assert receipt is not None, f"no receipt in {rundir.url}"
        assert receipt.name == rundir.name
        return receipt


@pytest.fixture(scope="module")
def live(stack: Stack) -> Live:
    api = Api(stack)
    rows = {
        "marked": api.trigger("long"),
        "never deletes": api.trigger("never_deletes"),
        "dies": api.trigger("dies_during_create"),
        "refuses": api.trigger("refuses_create"),
        "wrong": api.trigger("wrong"),
        "all ok": api.trigger("quick"),
    }
    return Live(api, stack.project, rows)


def test_all_ok(live: Live) -> None:
    run = live.runs["all ok"]
    assert run.end() == "success"
    assert run.tasks() == dict.fromkeys(OURS, "success")
    rundir = live.only(run)
    assert live.times_run(rundir) == 1
    assert live.receipt(rundir).rule.startswith("deleted")
    assert live.none_left(rundir)
    report = live.store.get(f"{rundir.root}/report.html")
    assert report is not None and b"<html" in report
    assert "deletion proven" in run.log("delete_cluster")


def test_whole_run_cleared_is_a_second_generation(live: Live) -> None:
    run = live.runs["all ok"]
    assert run.end() == "success"
    run.clear()
    live.api.until(lambda: len(live.generations(run)) == 2, "a second generation")
    assert run.end() == "success"
    first, second = (rundir for rundir, _ in live.generations(run))
    assert first.name != second.name
    assert [live.times_run(rundir) for rundir in (first, second)] == [1, 1]
    assert live.receipt(first).generation == 1
    assert live.receipt(second).generation == 2
    assert live.none_left(second)


def test_job_fails(live: Live) -> None:
    run = live.runs["wrong"]
    assert run.end() == "failed"
    tasks = run.tasks()
    assert (tasks["run_job"], tasks["collect_metrics"], tasks["delete_cluster"]) == ("failed", "success", "success")
    assert tasks["report"] == "failed"
    rundir = live.only(run)
    assert rundir.last_attempt("run_job") == 1
    assert live.receipt(rundir) and live.none_left(rundir)
    assert "invalid literal for int()" in run.log("run_job", run.tries("run_job")), (
        "a failed task's log ends with the reason"
    )


def test_create_fails(live: Live) -> None:
    run = live.runs["refuses"]
    assert run.end() == "failed"
    tasks = run.tasks()
    assert (tasks["create_cluster"], tasks["run_job"]) == ("failed", "upstream_failed")
    assert (tasks["delete_cluster"], tasks["report"]) == ("success", "failed")
    assert run.tries("create_cluster") == 3, "default_args of the DAG must not set the retries"
    rundir = live.only(run)
    assert live.receipt(rundir) and live.none_left(rundir)
    assert live.times_run(rundir) == 0


def test_process_of_create_dies(live: Live) -> None:
    """Nobody heard that the cluster was made; it is deleted all the same, or used when a retry adopts it."""
    run = live.runs["dies"]
    assert run.end() == "failed"
    tasks = run.tasks()
    assert (tasks["create_cluster"], tasks["run_job"]) == ("failed", "upstream_failed")
    assert (tasks["delete_cluster"], tasks["report"]) == ("success", "failed")
    rundir = live.only(run)
    assert live.receipt(rundir) and live.none_left(rundir)
    assert live.times_run(rundir) == 0


def test_dag_run_marked_failed_in_mid_job(live: Live) -> None:
    run = live.runs["marked"]

    def in_mid_job() -> bool:
        found = live.generations(run)
        status = found[0][0].attempt("run_job", 1).status() if found else None
        return status is not None and status.phase is Phase.RUN and status.tasks.running > 0

    live.api.until(in_mid_job, "the job's run phase")
    rundir = live.only(run)
    assert len(live.processes(rundir)) > 3
    run.mark("failed")
    assert run.end() == "failed"
    tasks = run.tasks()
    assert (tasks["delete_cluster"], tasks["report"]) == ("success", "failed")
    assert live.receipt(rundir) and live.none_left(rundir)
    record = rundir.attempt("run_job", 1).record()
    assert record is not None and record.outcome == "cancelled"
    assert live.times_run(rundir) == 0


def test_delete_fails_for_good(live: Live) -> None:
    run = live.runs["never deletes"]
    assert run.end() == "failed"
    tasks = run.tasks()
    assert (tasks["run_job"], tasks["delete_cluster"], tasks["report"]) == ("success", "failed", "failed")
    assert run.tries("delete_cluster") == 6
    rundir = live.only(run)
    assert rundir.receipt() is None, "nothing may claim a proof that there is none of"
    assert live.times_run(rundir) == 1
    assert live.none_left(rundir), "the entry stays, but the job's processes ended with the job"
    assert "permission to delete was taken away" in run.log("delete_cluster", 6)


def test_clearing_only_the_job_never_runs_it_on_a_deleted_cluster(live: Live) -> None:
    """Airflow 3.1 clears the job alone, which must refuse; 3.3 clears its setups and teardowns, too, which is a new
    generation. Either way no cluster is left, and the colour says what happened."""
    run = live.runs["wrong"]
    assert run.end() == "failed"
    cleared = run.clear_tasks("cluster.run_job")
    assert run.end() == "failed"
    generations = live.generations(run)
    if "plan" in cleared:
        assert len(generations) == 2
    else:
        assert len(generations) == 1
        assert generations[0][0].last_attempt("run_job") == 1, "refused before an attempt was opened"
        assert "clear" in run.log("run_job", run.tries("run_job"))
    for rundir, _ in generations:
        assert live.receipt(rundir) and live.none_left(rundir)


def test_clearing_one_cluster_of_a_mapped_group_leaks_no_other(live: Live) -> None:
    """Airflow 3.3 clears create of *all* indexes, but delete of this one alone."""
    run = live.api.trigger("mapped")
    assert run.end() == "success"
    assert set(run.tasks().values()) == {"success"} and len(run.tasks()) == 12
    before = live.generations(run)
    assert sorted(plan.identity.map_index for _, plan in before) == [0, 1]
    cleared = run.clear_tasks(("each.run_job", 0), downstream=True)
    end = run.end()
    after = live.generations(run)
    for rundir, plan in after:
        made = bool(rundir.calls())
        assert not made or live.receipt(rundir), f"{rundir.name} was made and not deleted; cleared: {cleared}"
        assert live.none_left(rundir)
        assert live.times_run(rundir) == int(made), (plan.identity.map_index, plan.generation)
    again = [rundir for rundir, plan in after if plan.identity.map_index == 0 and plan.generation == 2]
    ran = bool(again) and bool(again[0].calls())
    assert end == ("success" if ran else "failed"), "green only when the cleared job ran on a cluster of its own"
