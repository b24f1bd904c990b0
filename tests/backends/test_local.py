"""The local backend: the conformance suite, and what only plain processes can do wrong."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mayfly.backends.local import Entry, LocalBackend
from mayfly.contract import FrozenTarget, Plan, decode
from mayfly.errors import BackendUnavailable
from mayfly.states import LOCAL, ClusterState, JobState
from tests.backends.conformance import PATIENCE, BackendConformance, make_order, starts, wait_for

pytestmark = pytest.mark.timeout(900)
DAEMON = """
import os
os.environ.pop("MAYFLY_CLUSTER", None)
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(write, str(os.getpid()).encode())
    for fd in range(256):
        try: os.close(fd)
        except OSError: pass
    os.execve("/bin/sleep", ["sleep", "600"], env)
(folder / "daemon").write_bytes(os.read(read, 20))
"""
WRITE_DOWN = """
import json
pid = int((folder / "daemon").read_text())
ticks = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
pathlib.Path(os.environ["MAYFLY_PROCESSES_FILE"]).write_text(json.dumps([[pid, ticks / os.sysconf("SC_CLK_TCK")]]))
"""


def written(path: Path) -> bool:
    """Whole: there is a moment between the making of a file and its only write."""
    return path.exists() and path.stat().st_size > 0


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def target(tmp_path: Path) -> FrozenTarget:
    return FrozenTarget(
        name="local",
        backend="local",
        launcher="processes",
        staging=f"file://{tmp_path}/staging",
        options={"state_dir": str(tmp_path / "state")},
    )


class TestLocal(BackendConformance):
    def test_every_state_of_ours_is_in_the_table(self) -> None:
        assert set(LOCAL.values()) <= set(ClusterState)

    def test_capacity_is_this_machine_or_less(self, backend: LocalBackend) -> None:
        capacity = backend.capacity()
        assert 1 <= capacity.cores <= (os.cpu_count() or 1)
        assert 0 < capacity.memory < psutil.virtual_memory().total

    def test_the_driver_outlives_whoever_submitted_it(
        self, backend: LocalBackend, target: FrozenTarget, plan: Plan, tmp_path: Path
    ) -> None:
        backend.create(plan)
        order, rundir = make_order(target, plan)
        program = (
            "import sys, os, signal\n"
            "from mayfly.backends.local import LocalBackend\n"
            "from mayfly.contract import FrozenTarget, JobOrder, decode\n"
            "target, order, rundir = sys.argv[1:]\n"
            "backend = LocalBackend(decode(FrozenTarget, target.encode()))\n"
            "backend.submit(decode(JobOrder, order.encode()), rundir=rundir)\n"
            "os.killpg(0, signal.SIGKILL)\n"
        )
        from mayfly.contract import encode

        submitter = subprocess.run(
            [sys.executable, "-c", program, encode(target).decode(), encode(order).decode(), rundir],
            env=os.environ | {"PYTHONPATH": "plugins"},
            cwd=Path(__file__).parents[2],
            start_new_session=True,
            timeout=PATIENCE,
        )
        assert submitter.returncode == -signal.SIGKILL
        wait_for(lambda: len(starts(target, order)) == 1, what="driver started")
        assert LocalBackend(target).poll(order).state is JobState.RUNNING

    def test_a_driver_whose_pid_was_never_written_down_is_found(
        self, backend: LocalBackend, target: FrozenTarget, plan: Plan, tmp_path: Path
    ) -> None:
        backend.create(plan)
        order, rundir = make_order(target, plan)
        backend.submit(order, rundir=rundir)
        wait_for(lambda: len(starts(target, order)) == 1, what="driver started")
        next(tmp_path.glob("state/clusters/*/jobs/run_job/1/driver.json")).unlink()
        assert backend.poll(order).state is JobState.RUNNING
        backend.submit(order, rundir=rundir)
        time.sleep(0.5)
        assert len(starts(target, order)) == 1

    def test_a_driver_is_the_same_when_the_clock_is_set(
        self, backend: LocalBackend, target: FrozenTarget, plan: Plan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When Linux's clock is set, so is what it takes for the machine's start."""
        monkeypatch.setenv("STAND_IN", "time.sleep(600)")
        backend.create(plan)
        order, rundir = make_order(target, plan)
        backend.submit(order, rundir=rundir)
        start = psutil.boot_time()
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: start + 1)
        assert backend.poll(order).state is JobState.RUNNING
        backend.submit(order, rundir=rundir)
        wait_for(lambda: starts(target, order), what="driver started")
        assert len(starts(target, order)) == 1

    @pytest.mark.parametrize("marks", ["kept", "cleaned"])
    def test_delete_ends_a_daemon(
        self,
        backend: LocalBackend,
        target: FrozenTarget,
        plan: Plan,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        marks: str,
    ) -> None:
        """Double fork, own session, closed files; in the second case also an empty environment and a dead parent."""
        environment = "dict(os.environ)" if marks == "kept" else "{}"
        program = f"env = {environment}\n{DAEMON}{WRITE_DOWN if marks == 'cleaned' else ''}"
        monkeypatch.setenv("STAND_IN", program)
        backend.create(plan)
        order, rundir = make_order(target, plan)
        backend.submit(order, rundir=rundir)
        folder = tmp_path / "staging" / "runs" / plan.name / "jobs" / "run_job" / "1"
        noted = tmp_path / "state" / "clusters" / plan.name / "jobs" / "run_job" / "1" / "processes.json"
        wait_for(lambda: written(folder / "daemon") and (marks == "kept" or written(noted)), what="daemon")
        daemon = psutil.Process(int((folder / "daemon").read_text()))
        os.kill(int(starts(target, order)[0]), signal.SIGKILL)
        wait_for(lambda: daemon.ppid() == 1 or daemon.parent() is None or daemon.name() == "sleep", what="orphaned")
        assert daemon.is_running()
        assert backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT
        assert not lives(daemon)

    def test_a_pid_that_was_used_again_is_not_ours(
        self, backend: LocalBackend, target: FrozenTarget, plan: Plan, tmp_path: Path
    ) -> None:
        bystander = subprocess.Popen(["sleep", "600"])
        try:
            backend.create(plan)
            noted = tmp_path / "state" / "clusters" / plan.name / "jobs" / "run_job" / "1" / "processes.json"
            noted.parent.mkdir(parents=True)
            noted.write_text(json.dumps([[bystander.pid, 12345.0]]))
            assert backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()

    def test_delete_leaves_a_tombstone_and_nothing_else(
        self, backend: LocalBackend, target: FrozenTarget, plan: Plan, tmp_path: Path
    ) -> None:
        backend.create(plan)
        order, rundir = make_order(target, plan)
        backend.submit(order, rundir=rundir)
        assert backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT
        folder = tmp_path / "state" / "clusters" / plan.name
        assert sorted(path.name for path in folder.iterdir()) == ["entry.json", "lock"]

    def test_another_host_is_told_where_to_look(
        self, backend: LocalBackend, target: FrozenTarget, plan: Plan, tmp_path: Path
    ) -> None:
        backend.create(plan)
        path = tmp_path / "state" / "clusters" / plan.name / "entry.json"
        mine = path.read_bytes()
        path.write_bytes(mine.replace(platform.node().encode(), b"elsewhere"))
        with pytest.raises(BackendUnavailable, match="made on host 'elsewhere'"):
            backend.delete(plan.name, owner=plan.owner)
        path.write_bytes(mine)
        assert decode(Entry, mine).host == platform.node()

    def test_the_job_does_not_see_the_orchestrators_configuration(
        self,
        backend: LocalBackend,
        target: FrozenTarget,
        plan: Plan,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://user:word@host/db")
        backend.create(plan)
        order, rundir = make_order(target, plan)
        backend.submit(order, rundir=rundir)
        wait_for(lambda: bool(starts(target, order)), what="driver started")
        environment = psutil.Process(int(starts(target, order)[0])).environ()
        assert not [key for key in environment if key.startswith("AIRFLOW")]
        assert environment["MAYFLY_OWNER"] == plan.owner
