"""Runs on the backend dataproc, from plan to receipt, when the cloud is not what it was."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.backends.dataproc import DataprocBackend
from mayfly.contract import (
    Failure,
    FailureClass,
    Outcome,
    Plan,
    YarnPlan,
)
from mayfly.errors import (
    BackendRefused,
    ClusterFailed,
    DeadlinePassed,
    JobFailed,
    NotProven,
)
from mayfly.steps.lifecycle import JobRequest
from mayfly.steps.poke import Poll
from mayfly.steps.reporting import report
from scripts.cloud.object_store import ObjectStore
from tests.backends.conformance import PATIENCE, make_plan, wait_for
from tests.backends.on_dataproc import (
    JOB,
    WAITS,
    Project,
    delete,
    done,
    make_target,
    work,
)
from tests.emulators.dataproc.client import Emulator

pytestmark = pytest.mark.timeout(900)


def test_a_job_from_plan_to_receipt(emulator: Emulator, project: Project, tmp_path: Path) -> None:
    run = project.living(JOB)
    assert run.plan.nodes is not None and run.plan.nodes.primary is None
    run.backend.quiet_seconds = PATIENCE  # from the submission to the driver's first sign of life, on any machine
    record = work(run, str(tmp_path / "out"))
    assert record.outcome is Outcome.SUCCESS and record.tasks.done >= 1
    assert (tmp_path / "out").read_text() == "ran"
    deletes: list[Poll] = []
    wait_for(lambda: deletes.append(run.delete("test")) or deletes[-1].done, what="deleted")  # type: ignore[func-returns-value]
    receipt = deletes[-1].result
    assert receipt.rule.startswith("deleted") and receipt.cost is None and receipt.billed_seconds > 0
    assert emulator.clusters() == [] and len(emulator.history()) == 1
    calls = emulator.calls()
    assert calls["SubmitJob"] == {"OK": 1}
    assert "GetJob" not in calls, "the run directory says how the job is; the API need not be asked"
    assert sum(calls["ListClusters"].values()) <= 2 + len(deletes)


@pytest.mark.parametrize(
    ("how", "detail", "cls"),
    [
        ("master lost", "is gone", FailureClass.CLUSTER_LOST),
        ("master preempted", "Instance was preempted.", FailureClass.PREEMPTED),
        ("deleted by hand", "not found in project acme-data", FailureClass.CLUSTER_LOST),
    ],
)
def test_a_cluster_that_dies_in_mid_job_is_noticed_and_named(
    emulator: Emulator, project: Project, how: str, detail: str, cls: FailureClass
) -> None:
    run = project.living(WAITS)
    request = JobRequest(key="run_job", script="job.py")
    poke = lambda: run.job(request, try_number=1, inline=True, by="test")  # noqa: E731
    wait_for(lambda: any("waiting" in line for line in poke().lines), what="job runs")
    run.backend.quiet_seconds = 2.0
    if how == "master lost":
        emulator.node(run.plan.name, "m", "lose")
    elif how == "master preempted":
        emulator.node(run.plan.name, "m", "lose")
        emulator.set_state(run.plan.name, "ERROR", detail=detail)
    else:
        wait_for(lambda: delete(run.backend, run.plan), what="gone")  # type: ignore[arg-type]
    with pytest.raises(JobFailed) as failed:
        wait_for(lambda: poke().done, what="noticed")
    failure: Failure = failed.value.failure
    assert failure.cls is cls and not failure.retryable
    assert detail in failure.summary()
    if how == "deleted by hand":  # by somebody of whom the run directory knows nothing: red, until its maximum age
        with pytest.raises(NotProven, match="no look-up by name ever showed it"):
            done(lambda: run.delete("test"))
    else:
        assert done(lambda: run.delete("test")).rule.startswith("deleted")


def test_permissions_that_were_withdrawn_in_mid_run_keep_the_proof_and_not_the_cluster(
    emulator: Emulator, project: Project
) -> None:
    run = project.living(WAITS)
    request = JobRequest(key="run_job", script="job.py")
    poke = lambda: run.job(request, try_number=1, inline=True, by="test")  # noqa: E731
    wait_for(lambda: any("waiting" in line for line in poke().lines), what="job runs")
    emulator.node(run.plan.name, "m", "lose")  # nobody is left who could write a record
    for verb in ("GetJob", "CancelJob", "ListClusters"):
        emulator.rule(on=verb, do="403")

    def gone() -> bool:
        with suppress(BackendRefused):
            run.delete("test")
        return emulator.clusters() == []

    wait_for(gone, what="cluster gone")
    with pytest.raises(BackendRefused):
        run.delete("test")
    assert run.dir.receipt() is None
    emulator.forget_rules()
    assert done(lambda: run.delete("test")).rule.startswith("deleted")


def test_a_failed_init_action_is_told_before_anything_is_deleted(
    emulator: Emulator, project: Project, object_store: ObjectStore
) -> None:
    said = [f"+ step {number}" for number in range(60)] + ["sha256 of the environment is wrong"]
    emulator.rule(on="boot", do="init_fails", node="m", output="\n".join(said))
    run = project.plan()
    evidence = {"node": f"{run.plan.name}-m", "role": "Master", "ok": False, "seconds": 1.5, "reason": "bad sum"}
    run.store.put(f"{run.dir.root}/nodes/{run.plan.name}-m.json", json.dumps(evidence).encode())
    with pytest.raises(ClusterFailed) as failed:
        done(lambda: run.create("test"))
    assert failed.value.failure is not None and failed.value.failure.cls is FailureClass.INIT_ACTION
    text = str(failed.value)
    assert f"failed on {run.plan.name}-m" in text and "sha256 of the environment is wrong" in text
    assert "+ step 21" in text and "+ step 20\n" not in text
    assert "could not be set up (1.5 s): bad sum" in text
    assert len(emulator.clusters()) == 1 and not failed.value.retryable
    broken = run.dir.broken()
    assert broken is not None and broken.failure == failed.value.failure
    assert done(lambda: run.delete("test")).rule.startswith("deleted")
    assert emulator.clusters() == []
    poll = report(run, {"plan": "success", "create_cluster": "failed", "delete_cluster": "success"})
    assert not poll.result.ok and "  the cluster never came up: init action" in poll.lines
    page = (run.store.get(f"{run.dir.root}/report.html") or b"").decode()
    assert "Why the cluster never came up" in page and "sha256 of the environment is wrong" in page


def test_a_lease_in_a_bucket_is_written_once_a_second(emulator: Emulator, project: Project) -> None:
    run = project.living(WAITS)
    request = JobRequest(key="run_job", script="job.py")
    began = time.monotonic()
    for _ in range(10):
        run.job(request, try_number=1, inline=True, by="test")
    lease = run.dir.attempt("run_job", 1).lease()
    assert lease is not None and lease.seq <= 2 + time.monotonic() - began


def test_a_primary_node_that_never_comes_is_waited_for_and_then_told(
    emulator: Emulator, bucket: str, tmp_path: Path
) -> None:
    emulator.rule(on="boot", do="missing", node="w-1")
    target = replace(make_target(bucket), launcher="yarn", yarn=YarnPlan(), python="/usr/bin/python3")
    run = Project(tmp_path, target).plan(start_timeout=5.0)
    run.store.put(f"{run.dir.root}/nodes/{run.plan.name}-m.json", b"{}")
    with pytest.raises(DeadlinePassed, match=r"1 of 2 primary workers are there; set up so far: \S+-m$"):
        done(lambda: run.create("test"))
    assert done(lambda: run.delete("test")).rule.startswith("deleted")


def test_thirty_at_once_through_an_api_that_takes_no_more_calls(emulator: Emulator, tmp_path: Path) -> None:
    """Each call is refused some times; nobody fails, nobody is made twice, nothing is left."""
    target = make_target(f"file://{tmp_path / 'staging'}", call_deadline=PATIENCE)
    emulator.rule(on="CreateCluster", do="429", times=90)
    emulator.rule(on="DeleteCluster", do="429", times=60)
    emulator.rule(on="GetCluster", do="429", times=60)
    plans = [make_plan(target) for _ in range(30)]

    def live(plan: Plan) -> None:
        backend = DataprocBackend(target)
        backend.create(plan)
        wait_for(lambda: delete(backend, plan), what="gone")

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(live, plans))
    assert len(emulator.history()) == 30 and emulator.clusters() == []


def test_what_nodes_say_of_themselves_is_shown_once(emulator: Emulator, project: Project) -> None:
    making = emulator.rule(on="boot", do="stuck")
    run = project.plan()
    lines: list[str] = []
    progress: list[str] = []

    def poke() -> bool:
        poll = run.create("test")
        lines.extend(poll.lines)
        progress.extend(filter(None, [poll.progress]))
        return poll.done

    poke()
    run.store.put(f"{run.dir.root}/nodes/mf-m.json", b'{"node": "mf-m", "ok": true, "seconds": 4.25}')
    assert not poke()
    emulator.remove_rule(making)
    wait_for(poke, what="running")
    assert [line for line in lines if "mf-m" in line] == ["node mf-m is set up (4.2 s)"]
    assert len(progress) == len(set(progress)) >= 1
