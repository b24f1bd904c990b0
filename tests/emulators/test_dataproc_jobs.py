"""The emulated JobController: PySpark jobs whose main file is run for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from google.api_core import exceptions

from tests.emulators.dataproc.client import Emulator
from tests.emulators.dataproc.sdk import WHERE, Google
from tests.emulators.test_dataproc_clusters import until

MAIN = """
import json, os, subprocess, sys, time
print("args", sys.argv[1:], flush=True)
if sys.argv[1] == "wait":
    orphan = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print(json.dumps({"pids": [os.getpid(), orphan.pid]}), flush=True)
    time.sleep(600)
if sys.argv[1] == "much":
    print("x" * 2_500_000)
sys.exit(int(sys.argv[1]) if sys.argv[1].isdigit() else 0)
"""


@pytest.fixture
def main(tmp_path: Path) -> str:
    (tmp_path / "main.py").write_text(MAIN)
    return f"file://{tmp_path}/main.py"


def output(emulator: Emulator, job: object) -> str:
    bucket, _, path = job.driver_output_resource_uri.removeprefix("gs://").partition("/")  # type: ignore[attr-defined]
    parts = sorted((emulator.folder / "buckets" / bucket).glob(f"{path}.*"))
    assert [part.name.rsplit(".", 1)[1] for part in parts] == [f"{number:09d}" for number in range(len(parts))]
    return "".join(part.read_text() for part in parts)


def pids_of(emulator: Emulator, job: object) -> list[int]:
    def found() -> list[int]:
        lines = output(emulator, job).splitlines()
        return next((json.loads(line)["pids"] for line in lines if line.startswith("{")), [])

    pids: list[int] = until(found)
    return pids


def test_a_job_runs_its_file(google: Google, emulator: Emulator, main: str) -> None:
    google.create()
    assert google.submit(main, "0", "b").status.state.name == "PENDING"
    job = until(lambda: (job := google.job()).done and job)
    states = [status.state.name for status in [*job.status_history, job.status]]
    assert states == ["PENDING", "SETUP_DONE", "RUNNING", "DONE"]
    assert job.driver_output_resource_uri.endswith(f"/{google.get().cluster_uuid}/jobs/j/driveroutput")
    until(lambda: output(emulator, job) == "args ['0', 'b']\n")


def test_output_comes_in_pieces(google: Google, emulator: Emulator, main: str) -> None:
    google.create()
    google.submit(main, "much")
    job = until(lambda: (job := google.job()).done and job)
    assert until(lambda: len(output(emulator, job)) > 2_500_000)


def test_a_job_that_fails(google: Google, main: str) -> None:
    google.create()
    google.submit(main, "3")
    job = until(lambda: (job := google.job()).done and job)
    assert job.status.state.name == "ERROR"
    assert f"{job.driver_output_resource_uri}.*" in job.status.details


def test_one_id_is_one_job(google: Google, main: str) -> None:
    google.create()
    first = google.submit(main, "0", request_id="r")
    assert google.submit(main, "0", request_id="r").job_uuid == first.job_uuid
    with pytest.raises(exceptions.AlreadyExists, match="jobs/j"):
        google.submit(main, "0")
    with pytest.raises(exceptions.InvalidArgument, match="Invalid job id"):
        google.submit(main, "0", job_id="a b")
    with pytest.raises(exceptions.NotFound, match="clusters/none"):
        google.submit(main, "0", job_id="k", cluster="none")


def test_jobs_need_a_running_cluster(google: Google, emulator: Emulator, main: str) -> None:
    emulator.rule(on="boot", do="stuck")
    google.create(wait=False)
    with pytest.raises(exceptions.FailedPrecondition, match="state CREATING and cannot accept jobs"):
        google.submit(main, "0")


def test_jobs_run_on_a_cluster_that_could_not_be_updated(google: Google, emulator: Emulator, main: str) -> None:
    """As the SDK says of that state."""
    google.create()
    emulator.set_state("c", "ERROR_DUE_TO_UPDATE")
    google.submit(main, "0")
    assert until(lambda: (job := google.job()).done and job).status.state.name == "DONE"


def test_cancel(google: Google, emulator: Emulator, main: str) -> None:
    google.create()
    pids = pids_of(emulator, google.submit(main, "wait"))
    assert google.cancel().status.state.name == "CANCEL_PENDING"
    job = until(lambda: (job := google.job()).done and job)
    assert [status.state.name for status in job.status_history][-2:] == ["CANCEL_PENDING", "CANCEL_STARTED"]
    assert job.status.state.name == "CANCELLED"
    assert google.cancel().status.state.name == "CANCELLED"
    until(lambda: not psutil.pid_exists(pids[0]))
    assert psutil.pid_exists(pids[1]), "what a job left on the master stays until the cluster goes"
    google.delete()
    until(lambda: not psutil.pid_exists(pids[1]))


def test_lists_of_jobs(google: Google, emulator: Emulator, main: str) -> None:
    emulator.rule(on="job", do="body", seconds=3600, nth=2)
    google.create()
    google.submit(main, "0", job_id="a")
    until(lambda: google.job("a").done)
    google.submit(main, "0", job_id="b")

    def ids(**request: object) -> list[str]:
        return [job.reference.job_id for job in google.jobs.list_jobs(request={**WHERE, **request}, retry=None)]

    assert ids() == ["b", "a"] == ids(cluster_name="c") and ids(cluster_name="d") == []
    assert ids(job_state_matcher="ACTIVE") == ["b"] == ids(filter="status.state = ACTIVE")
    google.jobs.delete_job(request={**WHERE, "job_id": "a"}, retry=None)
    with pytest.raises(exceptions.FailedPrecondition, match="active job"):
        google.jobs.delete_job(request={**WHERE, "job_id": "b"}, retry=None)
    assert ids() == ["b"]


def test_jobs_end_with_their_cluster(google: Google, emulator: Emulator, main: str) -> None:
    google.create()
    pids = pids_of(emulator, google.submit(main, "wait"))
    google.delete()
    assert google.job().status.state.name == "ERROR" and "deleted" in google.job().status.details
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "the test is gone"])
def test_nothing_is_left_when_the_emulator_is_gone(how: str, tmp_path: Path, main: str) -> None:
    code = """
import sys
from pathlib import Path
from tests.emulators.dataproc.client import Emulator
from tests.emulators.dataproc.sdk import Google
emulator = Emulator(Path(sys.argv[1]), output_seconds=0.1)
google = Google(emulator)
google.create()
google.submit(sys.argv[2], "wait")
from tests.emulators.test_dataproc_jobs import pids_of
print(emulator.pid, *pids_of(emulator, google.job()), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "state"), main]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as other:
        assert other.stdout is not None
        server, *jobs = map(int, other.stdout.readline().split())
        assert len(jobs) == 2
        if how == "the test is gone":
            other.kill()
        else:
            os.kill(server, signal.Signals[how])
        until(lambda: not any(map(_alive, jobs)))
        other.kill()
    until(lambda: not _alive(server))


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
