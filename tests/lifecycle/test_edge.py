"""A DAG whose workers are on YARN, under a real scheduler: an ordinary run, and one that a user marks failed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mayfly.airflow.standalone import Stack
from mayfly.contract import Phase
from mayfly.yarn.tags import tag_of
from scripts.hadoop import Hadoop, missing
from tests.lifecycle.airflow_api import Api
from tests.lifecycle.test_verdicts import OURS, Live

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def hadoop(stack: Stack) -> Iterator[Hadoop]:
    """Where the stack's processes look for one; without HDFS, since nothing here needs it."""
    if why := missing():
        pytest.skip(why)
    with Hadoop(stack.home.parent / "hadoop", filesystem="viewfs") as cluster:
        yield cluster


@pytest.fixture
def live(stack: Stack) -> Live:
    return Live(Api(stack), stack.project, {})


def test_a_run_on_yarn(live: Live, hadoop: Hadoop) -> None:
    run = live.api.trigger("quick", target="edge")
    assert run.end() == "success", run.log("run_job")
    assert run.tasks() == dict.fromkeys(OURS, "success")
    rundir = live.only(run)
    assert live.times_run(rundir) == 1
    record = rundir.attempt("run_job", 1).record()
    assert record is not None and record.yarn is not None
    (application,) = record.yarn.applications
    assert hadoop.app(application)["finalStatus"] == "SUCCEEDED"
    assert record.yarn.containers_started == 1
    receipt = live.receipt(rundir)
    assert f"no YARN application tagged {tag_of(rundir.name)} is left" in " ".join(receipt.checks)
    assert live.none_left(rundir)


def test_marked_failed_in_mid_job(live: Live, hadoop: Hadoop) -> None:
    run = live.api.trigger("long", target="edge")

    def works() -> bool:
        found = live.generations(run)
        status = found[0][0].attempt("run_job", 1).status() if found else None
        return status is not None and status.phase is Phase.RUN and status.tasks.running > 0

    live.api.until(works, "the job's run phase")
    rundir = live.only(run)
    (running,) = hadoop.apps(states="RUNNING", applicationTags=tag_of(rundir.name))
    run.mark("failed")
    assert run.end() == "failed"
    assert run.tasks()["delete_cluster"] == "success"
    assert hadoop.app(running["id"])["state"] in ("FINISHED", "FAILED", "KILLED")
    assert "no YARN application" in " ".join(live.receipt(rundir).checks)
    assert live.none_left(rundir)
