"""The local backend: the conformance suite, and what only plain processes can do wrong."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mayfly.backends.local import Entry, LocalBackend
from mayfly.contract import FrozenTarget, Plan, decode
from mayfly.errors import BackendUnavailable, MayflyError, Refused
from mayfly.names import MANAGED_BY
from mayfly.states import LOCAL, ClusterState, JobState
from tests.backends.conformance import PATIENCE, BackendConformance, make_order, make_plan, starts, wait_for

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


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file takes a byte more; a program that is started meanwhile fares no better."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def held(lock: Path) -> Iterator[None]:
    """As by a process that was stopped in the middle of a verb."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
        order, rundir = make_order(target, plan)
        for verb in (
            lambda: backend.submit(order, rundir=rundir),
            lambda: backend.poll(order),
            lambda: backend.cancel(order),
            lambda: backend.delete(plan.name, owner=plan.owner),
        ):
            with pytest.raises(BackendUnavailable, match="made on host 'elsewhere'"):
                verb()
        path.write_bytes(mine)
        assert decode(Entry, mine).host == platform.node()
        assert backend.poll(order).state is JobState.NEVER_STARTED

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

    def test_a_full_disk_keeps_no_process_alive(
        self, backend: LocalBackend, target: FrozenTarget, living: Plan
    ) -> None:
        order, rundir = make_order(target, living)
        backend.submit(order, rundir=rundir)
        wait_for(lambda: bool(starts(target, order)), what="driver started")
        driver = psutil.Process(int(starts(target, order)[0]))
        with full_disk(), pytest.raises(BackendUnavailable, match=r"cannot write .*entry\.json"):
            backend.delete(living.name, owner=living.owner)
        assert not lives(driver)
        assert backend.describe(living.name).state is not ClusterState.ABSENT
        assert backend.delete(living.name, owner=living.owner).state is ClusterState.ABSENT
        with full_disk():  # there is nothing left to be written down
            assert backend.delete(living.name, owner=living.owner).state is ClusterState.ABSENT

    def test_a_full_disk_is_no_answer(self, backend: LocalBackend, target: FrozenTarget, plan: Plan) -> None:
        order, rundir = make_order(target, plan)
        with full_disk(), pytest.raises(BackendUnavailable, match="cannot write"):
            backend.create(plan)
        backend.create(plan)
        with full_disk(), pytest.raises(MayflyError, match="cannot"):
            backend.submit(order, rundir=rundir)
        backend.submit(order, rundir=rundir)
        wait_for(lambda: len(starts(target, order)) == 1, what="driver started")

    @pytest.mark.parametrize("damage", [b"", b'{"name": "mayf', b'{"state": 3}', b"\xff"])
    def test_a_damaged_entry_is_a_cluster_and_hides_no_other(
        self, backend: LocalBackend, target: FrozenTarget, living: Plan, tmp_path: Path, damage: bytes
    ) -> None:
        order, rundir = make_order(target, living)
        backend.submit(order, rundir=rundir)
        wait_for(lambda: bool(starts(target, order)), what="driver started")
        (tmp_path / "state" / "clusters" / living.name / "entry.json").write_bytes(damage)
        other = make_plan(target)
        backend.create(other)
        assert [view.name for view in backend.find({**MANAGED_BY, "run": other.run})] == [other.name]
        assert {view.name for view in backend.find(MANAGED_BY)} == {living.name, other.name}
        assert backend.delete(other.name, owner=other.owner).state is ClusterState.ABSENT
        view = backend.describe(living.name)
        assert view.state is ClusterState.ERROR and "entry.json" in view.detail
        with pytest.raises(Refused, match="not running"):
            backend.submit(make_order(target, living, attempt=2)[0], rundir=rundir)
        with pytest.raises(Refused, match=r"entry\.json"):
            backend.create(living)
        with pytest.raises(MayflyError, match="another owner"):
            backend.delete(living.name, owner="stranger")
        driver = psutil.Process(int(starts(target, order)[0]))
        assert lives(driver)
        assert backend.delete(living.name, owner=living.owner).state is ClusterState.ABSENT
        assert not lives(driver)
        assert backend.describe(living.name).labels["owner"] == living.owner

    def test_a_driver_whose_note_is_damaged_is_found_and_never_started_again(
        self, backend: LocalBackend, target: FrozenTarget, living: Plan, tmp_path: Path
    ) -> None:
        order, rundir = make_order(target, living)
        backend.submit(order, rundir=rundir)
        wait_for(lambda: len(starts(target, order)) == 1, what="driver started")
        next(tmp_path.glob("state/clusters/*/jobs/run_job/1/driver.json")).write_bytes(b"")
        assert backend.poll(order).state is JobState.RUNNING
        backend.cancel(order)
        wait_for(lambda: backend.poll(order).state is JobState.ENDED, what="driver ended")
        backend.submit(order, rundir=rundir)
        assert backend.poll(order).state is JobState.ENDED
        assert len(starts(target, order)) == 1

    def test_whoever_is_stopped_holding_the_lock_keeps_no_process_alive(
        self, backend: LocalBackend, target: FrozenTarget, living: Plan, tmp_path: Path
    ) -> None:
        order, rundir = make_order(target, living)
        backend.submit(order, rundir=rundir)
        wait_for(lambda: bool(starts(target, order)), what="driver started")
        driver = psutil.Process(int(starts(target, order)[0]))
        backend.lock_seconds = 0.1
        with held(tmp_path / "state" / "clusters" / living.name / "lock"):
            with pytest.raises(BackendUnavailable, match="somebody has held"):
                backend.delete(living.name, owner=living.owner)
            wait_for(lambda: not lives(driver), what="driver ended")
        assert backend.delete(living.name, owner=living.owner).state is ClusterState.ABSENT

    def test_a_store_that_hangs_under_a_submit_does_not_hold_up_delete(
        self, backend: LocalBackend, target: FrozenTarget, living: Plan, tmp_path: Path
    ) -> None:
        order, rundir = make_order(target, living)
        archive = tmp_path / "staging" / order.code
        whole = archive.read_bytes()
        archive.unlink()
        os.mkfifo(archive)
        refused: list[BaseException] = []

        def submit() -> None:
            try:
                LocalBackend(target).submit(order, rundir=rundir)
            except Refused as error:
                refused.append(error)

        submitter = threading.Thread(target=submit)
        submitter.start()
        with archive.open("wb") as pipe:  # opens when the submitter reads
            assert backend.delete(living.name, owner=living.owner).state is ClusterState.ABSENT
            pipe.write(whole)
        submitter.join(PATIENCE)
        assert len(refused) == 1 and starts(target, order) == []
        folder = tmp_path / "state" / "clusters" / living.name
        assert sorted(path.name for path in folder.iterdir()) == ["entry.json", "lock"]
