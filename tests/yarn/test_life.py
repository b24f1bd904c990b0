"""Life and death of a run's YARN application, by real kills on a real Hadoop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from mayfly.contract import FailureClass, Limits, Outcome, YarnPlan
from mayfly.yarn.tags import tag_of
from scripts.hadoop import Hadoop
from tests.driver.driving import CLUSTER, PATIENCE, Drive, Driving
from tests.yarn.fixtures import GRACE

pytestmark = pytest.mark.timeout(1800)

LIMITS = Limits(start=600, job=1200, stall=0)
PLAN = YarnPlan(fast_heartbeat=True, grace=GRACE)
SOON_GONE = YarnPlan(fast_heartbeat=True)
"""With the usual grace, which passes while a test waits: for drivers that go, on purpose."""
MEMORY = 512 << 20

SUM = """
import time
from dask.distributed import Client

def f(i):
    time.sleep(0.5)
    return i

client = Client()
print("GO", flush=True)
print("SUM", sum(client.gather(client.map(f, range(60)))), flush=True)
"""
"""60 tasks of half a second: 1770."""

WORKS = """
import time
from pathlib import Path
from dask.distributed import Client

def f(i):
    time.sleep(0.1)
    return i

client = Client()
print("GO", flush=True)
while not Path({go!r}).exists():
    client.gather(client.map(f, range(20), pure=False))
print("SUM", sum(client.gather(client.map(f, range(60)))), flush=True)
"""
"""Has work until it is told to end, and ends with 60 tasks more: 1770."""

SLEEP = SUM.partition('print("SUM')[0] + "time.sleep(600)\n"


def start(driving: Driving, hadoop: Hadoop, script: str, **order: Any) -> Drive:
    given = {"launcher": "yarn", "yarn": PLAN, "limits": LIMITS, "minimum": 2, "memory": MEMORY, **order}
    return driving.start({"job.py": script}, environment=hadoop.env, **given)


def running(hadoop: Hadoop) -> list[str]:
    """Ids of this run's applications that have not ended."""
    states = "NEW,NEW_SAVING,SUBMITTED,ACCEPTED,RUNNING"
    return [app["id"] for app in hadoop.apps(states=states, applicationTags=tag_of(CLUSTER))]


def containers(application: str) -> list[psutil.Process]:
    """Processes of all containers of an application, its master's, too."""
    found = []
    for process in psutil.process_iter():
        try:
            if application.removeprefix("application_") in process.environ().get("CONTAINER_ID", ""):
                found.append(process)
        except (psutil.Error, OSError):
            pass
    return found


def worker_processes(application: str) -> list[psutil.Process]:
    """Nannies: the Dask worker command of each container."""
    return [process for process in containers(application) if said(process, "distributed.cli.dask_worker")]


def said(process: psutil.Process, text: str) -> bool:
    """Whether a process that lives has it in its command line."""
    try:
        return any(text in part for part in process.cmdline())
    except psutil.Error:
        return False


def send(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            pass


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def note(drive: Drive) -> str:
    status = drive.status()
    return status.note if status is not None else ""


def until(done: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain"
        time.sleep(0.2)


def gone(hadoop: Hadoop) -> None:
    """Until no application of this run is left: YARN may need a moment more than the driver's record."""
    until(lambda: not running(hadoop))


def test_a_killed_container_is_replaced(hadoop: Hadoop, driving: Driving, tmp_path: Path) -> None:
    go = tmp_path / "go"
    drive = start(driving, hadoop, WORKS.format(go=str(go)))
    drive.wait_for_line("GO")
    (application,) = running(hadoop)
    before = worker_processes(application)
    victim = before[0]
    send([*victim.children(recursive=True), victim], signal.SIGKILL)
    drive.wait(lambda: [process for process in worker_processes(application) if process not in before])
    go.touch()
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS, drive.log()
    assert "SUM 1770" in drive.log()
    assert record.workers_lost >= 1
    gone(hadoop)
    assert record.yarn is not None
    assert record.yarn.applications == (application,)
    assert record.yarn.containers_started >= 3
    assert record.yarn.memory_mib_seconds > 0


def test_a_second_application_when_its_master_dies_and_no_third(
    hadoop: Hadoop, driving: Driving, tmp_path: Path
) -> None:
    drive = start(driving, hadoop, WORKS.format(go=str(tmp_path / "never")))
    drive.wait_for_line("GO")
    (first,) = running(hadoop)
    hadoop.kill_application_master(first)
    drive.wait(lambda: [app for app in running(hadoop) if app != first])
    drive.wait(lambda: (status := drive.status()) is not None and status.workers == 2 and "once more" in drive.log())
    (second,) = running(hadoop)
    until(lambda: len(worker_processes(second)) >= 2)
    hadoop.kill_application_master(second)
    record = drive.record()
    assert record.outcome is Outcome.FAILED
    assert record.failure is not None
    assert record.failure.cls is FailureClass.WORKER_LOST, record.failure
    assert record.failure.retryable
    assert "application master died" in record.failure.summary()
    gone(hadoop)


def test_the_job_goes_on_when_the_application_master_dies(hadoop: Hadoop, driving: Driving, tmp_path: Path) -> None:
    go = tmp_path / "go"
    drive = start(driving, hadoop, WORKS.format(go=str(go)))
    drive.wait_for_line("GO")
    (first,) = running(hadoop)
    hadoop.kill_application_master(first)
    drive.wait(lambda: [application for application in running(hadoop) if application != first])
    go.touch()
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS, drive.log()
    assert "SUM 1770" in drive.log()
    assert record.yarn is not None
    assert len(record.yarn.applications) == 2


def test_nothing_outlives_a_killed_driver(hadoop: Hadoop, driving: Driving) -> None:
    drive = start(driving, hadoop, SLEEP, yarn=SOON_GONE)
    drive.wait_for_line("GO")
    (application,) = running(hadoop)
    left = drive.descendants()
    assert any(said(process, "com.anaconda.skein.Driver") for process in left)
    os.kill(drive.process.pid, signal.SIGKILL)
    gone(hadoop)
    until(lambda: not containers(application))
    until(lambda: not any(map(lives, left)))


def test_the_lease_ends_it_when_the_watchdog_cannot(hadoop: Hadoop, driving: Driving) -> None:
    """The application master and its watchdog are stopped, not ended: only the ResourceManager is left to act."""
    drive = start(driving, hadoop, SLEEP, yarn=SOON_GONE)
    drive.wait_for_line("GO")
    (application,) = running(hadoop)
    workers = {p.pid for worker in worker_processes(application) for p in [worker, *worker.children(recursive=True)]}
    masters = [process for process in containers(application) if process.pid not in workers and said(process, "bash")]
    assert masters
    send(masters, signal.SIGSTOP)
    kill_all(drive)
    gone(hadoop)


def test_a_new_attempt_ends_what_the_last_one_has_left(hadoop: Hadoop, driving: Driving) -> None:
    first = start(driving, hadoop, SLEEP, minimum=1)
    first.wait_for_line("GO")
    (left,) = running(hadoop)
    kill_all(first)
    second = start(driving, hadoop, SUM.replace("range(60)", "range(2)"), minimum=1, attempt=1)
    assert second.record().outcome is Outcome.SUCCESS, second.log()
    assert f"ending {left}, which an earlier attempt has left behind" in second.log()
    until(lambda: hadoop.app(left)["state"] == "KILLED")


def test_the_resource_manager_goes_and_comes_back(hadoop: Hadoop, driving: Driving, tmp_path: Path) -> None:
    go = tmp_path / "go"
    drive = start(driving, hadoop, WORKS.format(go=str(go)))
    drive.wait_for_line("GO")
    hadoop.kill_resourcemanager()
    time.sleep(5)
    hadoop.start_resourcemanager()
    go.touch()
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS, drive.log()
    assert "SUM 1770" in drive.log()
    assert record.yarn is not None
    assert len(record.yarn.applications) == 1
    gone(hadoop)


def test_a_script_that_shuts_dask_down_ends_the_application(hadoop: Hadoop, driving: Driving) -> None:
    script = "from dask.distributed import Client\nclient = Client()\nprint(client.submit(sum, [1, 2]).result())\n"
    record = start(driving, hadoop, script + "client.shutdown()\n", minimum=1).record()
    assert record.outcome is Outcome.SUCCESS
    gone(hadoop)
    assert record.yarn is not None
    (application,) = record.yarn.applications
    assert hadoop.app(application)["finalStatus"] != "FAILED", "the driver ended it, not the watchdog"


def test_cancelling_a_start_ends_the_application(hadoop: Hadoop, driving: Driving) -> None:
    """No room for the workers: the job waits, says so, and is told to stop."""
    drive = start(driving, hadoop, SLEEP, minimum=40, memory=2 << 30)
    drive.wait(lambda: "of 40 workers" in note(drive))
    assert len(running(hadoop)) == 1
    drive.process.send_signal(signal.SIGTERM)
    assert drive.record().outcome is Outcome.CANCELLED
    gone(hadoop)


def test_no_container_in_time_is_explained(hadoop: Hadoop, driving: Driving) -> None:
    """The limit must not pass before the workers are asked for: on a machine that is slower than that, a longer one."""
    for seconds in (60, 120, 240, 480):
        limits = Limits(start=seconds, job=60, stall=0)
        drive = start(driving, hadoop, SLEEP, minimum=40, memory=2 << 30, limits=limits)
        if waits_for_room(drive, seconds):
            break
        gone(hadoop)
    record = drive.record(timeout=seconds + PATIENCE)
    assert record.failure is not None
    assert record.failure.cls in (FailureClass.STOCKOUT, FailureClass.QUOTA)
    assert record.failure.retryable
    assert "of 40 workers" in record.failure.summary()
    gone(hadoop)


def waits_for_room(drive: Drive, seconds: float) -> bool:
    """Wait until it does; False when the driver ended before, by its limit."""
    drive.wait(lambda: "pending" in note(drive) or drive.process.poll() is not None, timeout=seconds + PATIENCE)
    return drive.process.poll() is None


def test_a_worker_that_never_gets_up_is_explained(hadoop: Hadoop, driving: Driving) -> None:
    """Its container dies each time; what it said there is found, although it never reached the scheduler."""
    drive = start(
        driving, hadoop, SLEEP, minimum=1, dask={"distributed.nanny.pre-spawn-environ": {"PYTHONHOME": "/nowhere"}}
    )
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.START_FAILED
    assert "containers ended before a worker was ready" in record.failure.summary()
    log = drive.attempt.store.get(f"{drive.attempt.path}/logs/worker-0.txt")
    assert log is not None
    assert b"PYTHONHOME = '/nowhere'" in log
    gone(hadoop)


def kill_all(drive: Drive) -> None:
    """SIGKILL to the driver and all it has started here, as when the machine goes away."""
    for process in [psutil.Process(drive.process.pid), *drive.descendants()]:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    drive.process.wait(PATIENCE)
