"""The steps of a run against the real local backend, with a small program in the driver's place.

What two actors, a death or a clear can do to a run is tried here, one case after the other, by the same pokes that
Airflow's tasks and the command line make.
"""

from __future__ import annotations

import io
import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mayfly.backends.base import ClusterView
from mayfly.backends.local import LocalBackend
from mayfly.contract import (
    Closing,
    Failure,
    FailureClass,
    FrozenTarget,
    Identity,
    JobOrder,
    Lease,
    Outcome,
    Phase,
    Plan,
    Receipt,
    Status,
    Timestamp,
    Timing,
    Waiting,
)
from mayfly.errors import (
    BackendRefused,
    BackendUnavailable,
    ContractError,
    DeadlinePassed,
    JobFailed,
    NotProven,
    PlanError,
    Refused,
    StoreUnavailable,
)
from mayfly.generation import State
from mayfly.spec.job import ClusterSpec, JobSpec, WorkerSpec, WorkersRange
from mayfly.staging.stores import open_store
from mayfly.states import ClusterState
from mayfly.steps.attempts import LINES_A_POKE, rest_of_log
from mayfly.steps.deletion import overdue
from mayfly.steps.inventory import end_leak, find_run, leaks, list_runs
from mayfly.steps.lifecycle import Handle, JobRequest, Run, find_handle
from mayfly.steps.planning import plan_step
from mayfly.steps.poke import Poll
from mayfly.steps.reporting import report
from tests.backends.conformance import wait_for

pytestmark = pytest.mark.timeout(900)
# Takes the driver's place: the job's own script is run with the attempt's folder in `folder`.
DRIVER = """
import os, pathlib, runpy, sys, time
rundir, job, attempt = sys.argv[1:]
folder = pathlib.Path(rundir.removeprefix("file://")) / "jobs" / job / attempt
with open(folder / "started", "a") as f:
    f.write(f"{os.getpid()}\\n")
def segment(number, text):
    (folder / "log").mkdir(exist_ok=True)
    (folder / ".segment").write_text(text)
    (folder / ".segment").rename(folder / "log" / f"{number:06d}.txt")
def wait_for_go():
    while not (folder.parents[2] / "go").exists():
        time.sleep(0.02)
def record(outcome="success", failure=None, exit_code=0):
    import json
    (folder / ".record").write_text(json.dumps({
        "cluster": rundir.rsplit("/", 1)[-1], "job": job, "attempt": int(attempt), "outcome": outcome,
        "failure": failure, "exit_code": exit_code,
        "started_at": "2026-11-21T10:00:00Z", "ended_at": "2026-11-21T10:00:09Z"}))
    (folder / ".record").rename(folder / "record.json")
exec(compile((pathlib.Path(os.environ["MAYFLY_CODE_DIR"]) / "job" / "job.py").read_text(), "job.py", "exec"))
"""
HANG = "time.sleep(600)"
FAIL = 'record("failed", {"cls": "user error", "evidence": ["ZeroDivisionError"], "retryable": %s}, 1)'
IDENTITY = Identity(installation="test", dag_id="dag", run_id="run", group="cluster")


class Case:
    """A project of one job in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = FrozenTarget(
            name="local",
            backend=f"{__name__}:StandInDriver",
            launcher="processes",
            staging=f"file://{folder}/staging",
            options={"state_dir": str(folder / "state")},
            timing=Timing(stop_grace=1.0),
        )
        (folder / "job").mkdir()

    def spec(self, script: str, **changes: Any) -> JobSpec:
        (self.folder / "job" / "job.py").write_text(script)
        return JobSpec(
            name="case",
            folder=self.folder / "job",
            script="job.py",
            cluster=ClusterSpec(workers=WorkersRange(minimum=1, maximum=1), worker=WorkerSpec(cores=1, memory=10**9)),
            **changes,
        )

    def plan(self, script: str, *, identity: Identity = IDENTITY, **changes: Any) -> Run:
        handle = done(
            lambda: plan_step(
                job=self.spec(script, **changes),
                target=self.target,
                identity=identity,
                home=self.folder,
                by="test plan",
            )
        )
        return Run.open(Handle.from_json(handle.to_json()))

    def living(self, script: str, **changes: Any) -> Run:
        run = self.plan(script, **changes)
        done(lambda: run.create("test create"))
        return run

    def go(self, run: Run) -> None:
        """Ends the driver's `wait_for_go()`."""
        (self.folder / "staging" / "runs" / run.plan.name / "go").touch()

    def starts(self, run: Run, *, attempt: int = 1, job: str = "run_job") -> list[int]:
        path = self.folder / "staging" / "runs" / run.plan.name / "jobs" / job / str(attempt) / "started"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []


class StandInDriver(LocalBackend):
    """The local backend, with `DRIVER` in the driver's place in each code archive."""

    def submit(self, order: JobOrder, *, rundir: str) -> None:
        store = open_store(self.target.staging)
        data = store.get(order.code)
        assert data is not None
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as whole, zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("lib/mayfly/__init__.py", "")
            archive.writestr("lib/mayfly/driver/__init__.py", "")
            archive.writestr("lib/mayfly/driver/__main__.py", DRIVER)
            archive.writestr("job/job.py", whole.read("job/job.py"))
        code = order.code.replace("code/", "code/stand-in-")
        store.create(code, buffer.getvalue())
        super().submit(replace(order, code=code), rundir=rundir)


class AnswersForClustersOnly(LocalBackend):
    """Where nobody may look at jobs any more."""

    def poll(self, order: JobOrder) -> Any:
        raise BackendUnavailable("look at job: no answer")

    def cancel(self, order: JobOrder) -> None:
        raise BackendRefused(Failure(cls=FailureClass.PERMISSION))


class MayNotList(LocalBackend):
    def find(self, labels: Mapping[str, str]) -> list[ClusterView]:
        raise BackendRefused(Failure(cls=FailureClass.PERMISSION))


class GoesSlowly(LocalBackend):
    """As on a cloud, where a delete call only begins to delete."""

    asked = 0

    def delete(self, name: str, *, owner: str) -> ClusterView:
        self.asked += 1
        if self.asked < 3:
            return ClusterView(name=name, state=ClusterState.DELETING, labels=self.describe(name).labels)
        return super().delete(name, owner=owner)


class UnderRepair(LocalBackend):
    def describe(self, name: str) -> ClusterView:
        return replace(super().describe(name), state=ClusterState.CREATING, detail="REPAIRING")


class SharesSomething(LocalBackend):
    """Where a cluster leaves something that others may use."""

    tidied = 0

    def tidy(self, plan: Plan) -> None:
        self.tidied += 1


class ShowsLate(LocalBackend):
    """Where a look right after the create call does not show the cluster yet."""

    looks = 0

    def describe(self, name: str) -> ClusterView:
        self.looks += 1
        return super().describe(name) if self.looks > 1 else ClusterView(name=name, state=ClusterState.ABSENT)


@pytest.fixture
def case(tmp_path: Path) -> Any:
    made_case = Case(tmp_path)
    yield made_case
    backend = LocalBackend(made_case.target)
    for view in backend.find({}):
        backend.delete(view.name, owner=view.labels["owner"])


def done(poke: Callable[[], Poll]) -> Any:
    found: list[Poll] = []

    def look() -> bool:
        found.append(poke())
        return found[-1].done

    wait_for(look, what="poke done")
    return found[-1].result


def job(run: Run, *, key: str = "run_job", try_number: int = 1, by: str = "test job") -> Poll:
    return run.job(JobRequest(key=key, script="job.py"), try_number=try_number, inline=True, by=by)


# ---------------------------------------------------------------- the whole way


def test_from_plan_to_receipt(case: Case) -> None:
    run = case.living('segment(0, "hello\\n"); record()')
    record = done(lambda: job(run))
    assert record.outcome is Outcome.SUCCESS
    assert [each.attempt for each in done(lambda: run.collect("test"))] == [1]
    receipt: Receipt = done(lambda: run.delete("test delete"))
    assert receipt.rule.startswith("deleted:")
    assert receipt.created_at and receipt.deleted_at - receipt.created_at == pytest.approx(
        receipt.billed_seconds, abs=0.01
    )
    assert run.state() is State.CLOSED
    assert run.backend.describe(run.plan.name).state is ClusterState.ABSENT
    assert done(lambda: run.delete("somebody else")) == receipt
    states = {"plan": "success", "create_cluster": "success", "run_job": "success", "delete_cluster": "success"}
    assert done(lambda: report(run, states)).ok
    page = (case.folder / "staging" / "runs" / run.plan.name / "report.html").read_text()
    assert "deleted:" in page


def test_the_log_is_shown_once_and_a_flood_is_cut(case: Case) -> None:
    run = case.living('segment(0, "first\\n"); wait_for_go(); segment(1, "\\n".join(map(str, range(1000)))); record()')
    lines: list[str] = []
    polls = []
    while not polls or not polls[-1].done:
        polls.append(job(run))
        assert len([line for line in polls[-1].lines if not line.startswith("run_job: ")]) <= LINES_A_POKE
        lines += polls[-1].lines
        if "first" in lines:
            case.go(run)
        time.sleep(0.1)
    assert lines.count("first") == 1
    assert lines.count("999") == 1
    assert "950" not in lines
    assert any("951 lines left out" in line and "/log/" in line for line in lines)


def test_what_is_left_of_the_log_counts_with_what_this_poke_has_shown(case: Case) -> None:
    run = case.plan("record()")
    attempt = run.dir.attempt("run_job", 1)
    attempt.put("lease.json", Lease(seq=1, writer="test", ttl_s=60.0))
    run.store.put(f"{attempt.path}/log/000000.txt", "\n".join(f"new {n}" for n in range(30)).encode())
    shown = tuple(f"old {n}" for n in range(40))
    lines = rest_of_log(attempt, after=shown)
    assert len(lines) == LINES_A_POKE
    assert "left out" in lines[0] and "/log/" in lines[0]
    assert lines[1:] == (*shown[-(LINES_A_POKE - 31) :], *(f"new {n}" for n in range(30)))
    assert rest_of_log(attempt, after=shown) == shown


# ---------------------------------------------------------------- generations


def test_a_retry_of_plan_adopts_and_a_finished_run_opens_the_next(case: Case) -> None:
    first = case.plan("record()")
    again = case.plan("record()")
    assert (again.plan.name, again.plan.owner) == (first.plan.name, first.plan.owner)
    done(lambda: first.delete("test"))
    second = case.plan("record()")
    assert second.plan.generation == 2
    assert second.plan.name != first.plan.name
    assert second.plan.run == first.plan.run
    found = find_handle(job="case", target=case.target, identity=IDENTITY)
    assert found is not None and found.name == second.plan.name
    done(lambda: second.delete("test"))


def test_another_intention_ends_the_open_generation_first(case: Case) -> None:
    first = case.living(HANG)
    job(first)
    wait_for(lambda: bool(case.starts(first)), what="driver started")
    second = case.plan("record()")
    assert second.plan.generation == 2
    assert first.state() is State.CLOSED
    assert not _lives(case.starts(first)[0])
    with pytest.raises(Refused, match="clear the whole group"):
        job(first)
    done(lambda: second.delete("test"))


def test_an_expired_generation_is_not_adopted(case: Case) -> None:
    first = case.plan("record()")
    first.dir.put("plan.json", replace(first.plan, expires_at=first.plan.created_at))
    assert case.plan("record()").plan.generation == 2


def test_a_closing_generation_is_ended_by_the_next_plan(case: Case) -> None:
    first = case.living("record()")
    from mayfly.contract import Closing, Timestamp

    first.dir.create("closing.json", Closing(at=Timestamp(time.time()), by="a delete that died"))
    assert case.plan("record()").plan.generation == 2
    assert first.dir.receipt() is not None


def test_a_closing_generation_whose_file_is_damaged_is_ended_by_the_next_plan(case: Case) -> None:
    first = case.living("record()")
    first.store.put(f"{first.dir.root}/closing.json", b"")
    assert case.plan("record()").plan.generation == 2
    assert first.dir.receipt() is not None


# ---------------------------------------------------------------- create


def test_create_after_closing_makes_nothing(case: Case) -> None:
    run = case.plan("record()")
    receipt = done(lambda: run.delete("test"))
    assert receipt.rule.startswith("never asked for")
    with pytest.raises(Refused, match="is closed; nothing can start"):
        run.create("late")
    assert run.backend.find({"run": run.plan.run}) == []


def test_a_create_whose_process_died_before_the_call_is_proven_by_the_retired_name(case: Case) -> None:
    run = case.plan("record()")
    from mayfly.contract import CreateCall, Timestamp

    run.dir.create(
        "calls/1.json", CreateCall(name=run.plan.name, owner=run.plan.owner, at=Timestamp(time.time()), by="dead")
    )
    receipt = done(lambda: run.delete("test"))
    assert receipt.rule.startswith("name retired")
    with pytest.raises(Refused):
        run.backend.create(run.plan)  # the orphan's call arrives now


def test_a_cluster_that_is_not_shown_at_once_has_not_failed(case: Case) -> None:
    run = case.plan("record()")
    late = Run(plan=run.plan, store=run.store, backend=ShowsLate(case.target))
    assert done(lambda: late.create("test")).state is ClusterState.RUNNING


def test_a_created_cluster_that_nobody_ever_saw_is_not_proven_gone(case: Case) -> None:
    """A wrong state folder looks just like "nothing there"."""
    run = case.living("record()")
    elsewhere = replace(case.target, options={"state_dir": str(case.folder / "other")})
    lost = Run(plan=run.plan, store=run.store, backend=LocalBackend(elsewhere))
    with pytest.raises(NotProven, match="wrong account, region or state folder"):
        done(lambda: lost.delete("test"))
    assert run.dir.receipt() is None
    assert done(lambda: run.delete("test")).rule.startswith("deleted")


def test_without_a_plan_nothing_is_proven(case: Case) -> None:
    with pytest.raises(NotProven, match=r"no plan\.json"):
        Run.open(Handle(name="mayfly-case-0123456789", target=case.target))


def test_a_job_that_may_not_run_here_makes_nothing(case: Case) -> None:
    case.target = replace(case.target, name="elsewhere")
    with pytest.raises(PlanError, match="allowed: local"):
        case.plan("record()")
    assert not (case.folder / "staging" / "runs").exists()


# ---------------------------------------------------------------- jobs


def test_a_retry_joins_a_running_attempt_and_says_so(case: Case) -> None:
    run = case.living("wait_for_go(); record()")
    assert any("attempt 1" in line for line in job(run, by="try 1").lines)
    wait_for(lambda: bool(case.starts(run)), what="driver started")
    lines = job(run, try_number=2, by="try 2").lines
    assert any(line.startswith("reattached to attempt 1") for line in lines)
    case.go(run)
    done(lambda: job(run, try_number=2, by="try 2"))
    assert len(case.starts(run)) == 1
    assert case.starts(run, attempt=2) == []


def test_an_end_that_nobody_reported_is_reported_and_not_run_again(case: Case) -> None:
    run = case.living("record()")
    job(run)
    wait_for(lambda: run.dir.attempt("run_job", 1).record() is not None, what="record")
    assert done(lambda: job(run, try_number=2)).attempt == 1
    assert case.starts(run, attempt=2) == []


def test_a_success_that_was_reported_in_vain_is_reported_again(case: Case) -> None:
    """Airflow can lose a task's success and try again; that must not run the job a second time."""
    run = case.living("record()")
    assert done(lambda: job(run)).attempt == 1
    poll = job(run, try_number=2)
    assert poll.done and poll.result.attempt == 1
    assert any("had succeeded already" in line for line in poll.lines)
    assert (len(case.starts(run)), case.starts(run, attempt=2)) == (1, [])


def test_a_later_try_starts_the_next_attempt(case: Case) -> None:
    run = case.living(FAIL % "True")
    for number in (1, 2):
        with pytest.raises(JobFailed, match="ZeroDivisionError") as failed:
            done(lambda number=number: job(run, try_number=number))
        assert failed.value.retryable
    assert [len(case.starts(run, attempt=number)) for number in (1, 2, 3)] == [1, 1, 0]


def test_a_user_error_is_reported_to_every_try_and_never_run_again(case: Case) -> None:
    """Airflow can lose a task's failure, too, and then tries again what no retry cures."""
    run = case.living(FAIL % "False")
    with pytest.raises(JobFailed) as failed:
        done(lambda: job(run))
    assert not failed.value.retryable
    for number in (1, 2, 3):
        with pytest.raises(JobFailed, match="ZeroDivisionError"):
            job(run, try_number=number)
    assert case.starts(run, attempt=2) == []


def test_a_driver_killed_without_a_record_is_explained(case: Case) -> None:
    run = case.living('segment(0, "last words\\n"); time.sleep(600)')
    job(run)
    wait_for(lambda: run.dir.attempt("run_job", 1).log_segment(0) is not None, what="log")
    os.kill(case.starts(run)[0], signal.SIGKILL)
    with pytest.raises(JobFailed, match="driver died without a record") as failed:
        done(lambda: job(run))
    assert failed.value.retryable
    record = run.dir.attempt("run_job", 1).record()
    assert record is not None and record.by == "orchestrator"


def test_a_driver_that_was_never_started_is_started_by_the_next_poke(case: Case) -> None:
    run = case.living("record()")
    backend = run.backend

    class DiesBeforeSubmit(LocalBackend):
        def submit(self, order: Any, *, rundir: str) -> None:
            raise KeyboardInterrupt

    run.backend = DiesBeforeSubmit(case.target)
    with pytest.raises(KeyboardInterrupt):
        job(run)
    run.backend = backend
    assert done(lambda: job(run)).attempt == 1
    assert len(case.starts(run)) == 1


def test_two_jobs_do_not_run_at_once(case: Case) -> None:
    run = case.living("wait_for_go(); record()")
    job(run, key="first")
    poll = job(run, key="second")
    assert not poll.done and "'first' still runs" in poll.progress
    assert case.starts(run, job="second") == []
    case.go(run)
    done(lambda: job(run, key="first"))
    done(lambda: job(run, key="second"))


def test_a_job_needs_a_living_cluster(case: Case) -> None:
    run = case.plan("record()")
    with pytest.raises(Refused, match="needs a living one"):
        job(run)
    assert run.dir.last_attempt("run_job") == 0


def test_a_cluster_that_is_being_repaired_is_waited_for(case: Case) -> None:
    run = case.living("record()")
    repaired = Run(plan=run.plan, store=run.store, backend=UnderRepair(case.target))
    poll = job(repaired)
    assert not poll.done and "REPAIRING" in poll.progress
    assert run.dir.last_attempt("run_job") == 0
    assert done(lambda: job(run)).attempt == 1
    later = Waiting(at=Timestamp(time.time() - run.plan.limits.start - 1))
    repaired.dir.attempt("another", 1).create("waiting.json", later)
    with pytest.raises(DeadlinePassed, match="REPAIRING"):
        job(repaired, key="another")


@pytest.mark.parametrize(("silent_for", "soon"), [(1, False), (25, True), (60, True), (600, False)])
def test_a_silent_driver_is_looked_at_again_soon(case: Case, silent_for: float, soon: bool) -> None:
    run = case.living("wait_for_go(); record()")
    job(run)
    attempt = run.dir.attempt("run_job", 1)
    status = Status(seq=1, at=Timestamp(time.time() - silent_for), phase=Phase.RUN, elapsed=1.0)
    attempt.put("status.json", status)
    assert job(run).again is None  # asking costs nothing here
    run.backend.quiet_seconds = 20.0
    again = job(run).again
    assert (again is not None and again <= 10.0) == soon


# ---------------------------------------------------------------- collect, delete


def hanging(case: Case) -> Run:
    """A run whose job never ends, under way."""
    run = case.living(HANG)
    job(run)
    wait_for(lambda: bool(case.starts(run)), what="driver started")
    return run


def plan_handle(run: Run) -> Handle:
    return Handle(name=run.plan.name, target=run.plan.target, owner=run.plan.owner)


@contextmanager
def unreadable(case: Case, run: Run, name: str) -> Iterator[None]:
    """No file of that name can be read or written, not even by root: there is a folder in its place."""
    path = case.folder / "staging" / "runs" / run.plan.name / name
    aside = path.with_name("aside")
    if there := path.exists():
        path.rename(aside)
    path.mkdir(parents=True)
    try:
        yield
    finally:
        path.rmdir()
        if there:
            aside.rename(path)


def test_collect_ends_what_still_runs(case: Case) -> None:
    run = case.living(HANG)
    job(run)
    wait_for(lambda: bool(case.starts(run)), what="driver started")
    records = done(lambda: run.collect("test"))
    assert [record.by for record in records] == ["orchestrator"]
    assert not _lives(case.starts(run)[0])


def test_delete_while_the_job_hangs_and_ignores_every_request(case: Case) -> None:
    run = case.living("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + HANG)
    job(run)
    wait_for(lambda: bool(case.starts(run)), what="driver started")
    receipt = done(lambda: run.delete("test"))
    assert receipt.rule.startswith("deleted")
    assert not _lives(case.starts(run)[0])


@pytest.mark.parametrize(
    "name",
    [
        "jobs/run_job/1/record.json",
        "jobs/run_job/1/job.json",
        "jobs/run_job/1/status.json",
        "jobs/run_job/1/lease.json",
        "jobs/run_job/1/cancel.json",
        "closing.json",
        "deleting.json",
    ],
)
def test_a_damaged_file_does_not_keep_a_cluster_alive(case: Case, name: str) -> None:
    run = case.living(HANG)
    job(run)
    wait_for(lambda: bool(case.starts(run)), what="driver started")
    run.store.put(f"{run.dir.root}/{name}", b'{"half')
    assert done(lambda: run.delete("test")).rule.startswith("deleted")
    assert not _lives(case.starts(run)[0])
    assert not done(lambda: report(run, {})).ok or name == "status.json"


def test_a_damaged_receipt_proves_nothing_and_keeps_nothing(case: Case) -> None:
    run = hanging(case)
    run.store.put(f"{run.dir.root}/receipt.json", b'{"half')
    with pytest.raises(ContractError, match=r"nothing is left of cluster .* \(deleted.*receipt\.json"):
        done(lambda: run.delete("test"))
    assert not _lives(case.starts(run)[0])
    run.store.remove(f"{run.dir.root}/receipt.json")
    assert done(lambda: run.delete("test")).rule.startswith("deleted")


def test_a_create_whose_generation_was_closed_by_a_damaged_file_undoes_itself(case: Case) -> None:
    run = case.plan("record()")
    run.store.put(f"{run.dir.root}/closing.json", b"")
    with pytest.raises(Refused, match="is closing"):
        done(lambda: run.create("test"))
    assert run.backend.describe(run.plan.name).state is ClusterState.ABSENT


def test_jobs_of_which_nobody_answers_do_not_keep_a_cluster_alive(case: Case) -> None:
    run = hanging(case)
    silent = Run(plan=run.plan, store=run.store, backend=AnswersForClustersOnly(case.target))
    poll = silent.delete("test")
    assert not poll.done and "waiting for the record of run_job" in poll.progress
    attempt = run.dir.attempt("run_job", 1)
    asked = attempt.read(Closing, "cancel.json")
    assert asked is not None
    attempt.put("cancel.json", replace(asked, at=asked.at - 600))
    assert silent.delete("test").result.rule.startswith("deleted")
    assert not _lives(case.starts(run)[0])


def test_a_listing_that_is_refused_keeps_the_proof_and_not_the_cluster(case: Case) -> None:
    run = hanging(case)
    blind = Run(plan=run.plan, store=run.store, backend=MayNotList(case.target))
    with pytest.raises(BackendRefused):
        done(lambda: blind.delete("test"))
    assert not _lives(case.starts(run)[0])
    assert run.dir.receipt() is None
    assert done(lambda: run.delete("test")).rule.startswith("deleted")


@pytest.mark.parametrize("name", ["receipt.json", "closing.json", "deleting.json", "calls/1.json"])
def test_a_store_that_cannot_be_read_keeps_the_proof_and_not_the_cluster(case: Case, name: str) -> None:
    run = hanging(case)
    with unreadable(case, run, name), pytest.raises(StoreUnavailable, match="cannot"):
        done(lambda: run.delete("test"))
    assert not _lives(case.starts(run)[0])
    assert run.dir.receipt() is None
    assert done(lambda: run.delete("test")).rule.startswith("deleted")


def test_a_run_that_cannot_be_opened_is_ended_by_who_knows_its_owner(case: Case) -> None:
    run = hanging(case)
    handle = plan_handle(run)
    with unreadable(case, run, "plan.json"):
        for opening in (lambda: Run.open(handle), lambda: Run.open(replace(handle, owner=""), ending=True)):
            with pytest.raises(StoreUnavailable):
                opening()
            assert _lives(case.starts(run)[0])
        with pytest.raises(StoreUnavailable):
            Run.open(handle, ending=True)
    assert not _lives(case.starts(run)[0])
    assert done(lambda: Run.open(handle).delete("test")).rule.startswith("deleted")


def test_a_run_without_a_plan_is_ended_by_who_knows_its_owner(case: Case) -> None:
    run = hanging(case)
    run.store.remove(f"{run.dir.root}/plan.json")
    with pytest.raises(NotProven, match=r"no plan\.json"):
        Run.open(plan_handle(run), ending=True)
    assert not _lives(case.starts(run)[0])


def test_a_deletion_that_is_taken_up_late_has_its_time(case: Case) -> None:
    run = hanging(case)
    long_ago = Timestamp(time.time() - 2 * run.plan.limits.delete)
    run.dir.create("closing.json", Closing(at=long_ago, by="a delete that gave up"))
    slow = Run(plan=run.plan, store=run.store, backend=GoesSlowly(case.target))
    assert done(lambda: slow.delete("test")).rule.startswith("deleted")


def test_a_deletion_that_takes_too_long_says_so(case: Case) -> None:
    run = hanging(case)
    long_ago = Timestamp(time.time() - 2 * run.plan.limits.delete)
    run.dir.create("closing.json", Closing(at=long_ago, by="test"))
    slow = Run(plan=run.plan, store=run.store, backend=GoesSlowly(case.target))
    with pytest.raises(DeadlinePassed, match=r"still there: .* deleting"):
        done(lambda: slow.delete("test"))


@pytest.mark.parametrize(
    ("closing_at", "taken_up_at", "now", "over"), [(0, 0, 99, -1), (0, 0, 101, 1), (0, 1000, 1099, -1), (9, 0, 110, 1)]
)
def test_the_time_of_a_deletion_counts_from_who_took_it_up(
    closing_at: float, taken_up_at: float, now: float, over: float
) -> None:
    assert overdue(closing_at=closing_at, taken_up_at=taken_up_at, limit=100, now=now) == over


def test_what_was_shared_is_tidied_also_when_the_receipt_was_the_last_that_somebody_did(case: Case) -> None:
    run = case.living("record()")
    done(lambda: run.delete("one who died after the receipt"))
    shares = SharesSomething(case.target)
    assert Run(plan=run.plan, store=run.store, backend=shares).delete("another").done
    assert shares.tidied == 1


def test_two_deleters_write_one_receipt(case: Case) -> None:
    run = case.living("record()")
    other = Run.open(Handle(name=run.plan.name, target=case.target))
    receipts = [done(lambda r=r, n=n: r.delete(n)) for n, r in (("one", run), ("two", other))]
    assert receipts[0] == receipts[1]
    assert receipts[0].by == "one"


# ---------------------------------------------------------------- from outside


def test_what_is_on_call_sees_and_ends(case: Case) -> None:
    run = case.living(HANG)
    job(run)
    listed = list_runs(case.target)
    assert [(item.name, item.state) for item in listed] == [(run.plan.name, State.OPEN)]
    assert list(leaks(case.target)) == []
    assert find_run(case.target, run.plan.name[:14]).plan == run.plan
    (leak,) = leaks(case.target, now=run.plan.expires_at + 5)
    assert "expired 5 s ago" in leak.reason
    wait_for(lambda: end_leak(leak, run.backend, by="test reap") is not None, what="receipt")
    assert run.backend.find({}) == []
    assert list(leaks(case.target, now=run.plan.expires_at + 5)) == []


def test_a_plan_that_nobody_goes_on_with_is_closed_as_never_asked_for(case: Case) -> None:
    run = case.plan(HANG)
    assert list(leaks(case.target)) == []
    later = run.plan.created_at + 2 * run.plan.target.timing.lease_ttl + run.plan.limits.start + 60
    assert later < run.plan.expires_at
    (leak,) = leaks(case.target, now=later)
    receipt = end_leak(leak, run.backend, by="test reap")
    assert receipt is not None
    assert receipt.rule.startswith("never asked for")
    assert (receipt.created_at, receipt.billed_seconds) == (None, 0.0)
    assert list(leaks(case.target, now=later)) == []


def test_a_cluster_whose_run_directory_is_gone_is_ended_once_expired(case: Case) -> None:
    import shutil

    run = case.living(HANG)
    shutil.rmtree(case.folder / "staging" / "runs")
    assert list(leaks(case.target)) == []
    (leak,) = leaks(case.target, now=run.plan.expires_at + 5)
    assert leak.run is None
    end_leak(leak, run.backend, by="test reap")
    assert run.backend.find({}) == []


def _lives(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
