"""Every reason for which the supervisor ends a job: always the same path, always a record, nothing left."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mayfly.contract import Closing, FailureClass, Limits, Outcome, Phase, Timestamp
from mayfly.staging.rundir import AttemptDir
from tests.driver.driving import LIB, PATIENCE, Drive, Driving, command_line, held_start

SLEEPS = """
import time
print("here we are", flush=True)
time.sleep(300)
"""

HANGS_ON_A_WORKER = """
import time
from dask.distributed import Client

def sleeps_in_a_task():
    time.sleep(300)

client = Client()
print("here we are", flush=True)
client.submit(sleeps_in_a_task).result()
"""


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    assert alive == []


def running(driving: Driving, script: str = SLEEPS, **order: object) -> Drive:
    drive = driving.start({"job.py": script}, **order)  # type: ignore[arg-type]
    drive.wait_for_line("here we are")
    return drive


def test_sigterm_cancels_even_a_script_that_ignores_it(driving: Driving) -> None:
    drive = running(driving, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + HANGS_ON_A_WORKER)
    everyone = drive.descendants()
    drive.process.send_signal(signal.SIGTERM)
    record = drive.record()
    assert record.outcome is Outcome.CANCELLED
    assert record.failure is not None
    assert record.failure.cls is FailureClass.CANCELLED
    assert record.exit_code == -signal.SIGKILL
    assert "ignored SIGTERM" in drive.log()
    assert_gone(everyone)


def test_sigterm_at_any_moment_of_the_start_leaves_a_record(driving: Driving) -> None:
    files, settings = held_start(driving.folder / "never")
    drive = driving.start({"job.py": SLEEPS, **files}, dask=settings)
    drive.wait(lambda: drive.attempt.store.list(f"{drive.attempt.path}/status"))
    drive.process.send_signal(signal.SIGTERM)
    record = drive.record()
    assert record.outcome is Outcome.CANCELLED
    assert record.exit_code is None


def test_timeout(driving: Driving) -> None:
    # Many times what the script needs until its task sleeps.
    drive = driving.run({"job.py": HANGS_ON_A_WORKER}, limits=Limits(start=120, job=12, stall=0))
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.TIMEOUT
    assert record.exit_code == -signal.SIGTERM
    assert "sleeps_in_a_task" in drive.log(), "call stacks of the workers"
    assert "the script's threads:" in drive.log()
    assert record.phases[Phase.RUN] >= 12


def test_stall_dumps_stacks_at_half_time_and_at_the_end(driving: Driving) -> None:
    drive = driving.run({"job.py": HANGS_ON_A_WORKER}, limits=Limits(start=120, job=220, stall=12))
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.STALLED
    log = drive.log()
    assert log.count("in sleeps_in_a_task") >= 2  # more when a heartbeat looked like work
    assert log.count("the script's threads:") >= 2


def test_one_long_task_that_computes_is_no_stall(driving: Driving) -> None:
    busy = """
import time
from dask.distributed import Client

def busy():
    until = time.monotonic() + 7
    while time.monotonic() < until:
        sum(range(100_000))

Client().submit(busy).result()
"""
    drive = driving.run({"job.py": busy}, limits=Limits(start=120, job=120, stall=4))
    assert drive.record().outcome is Outcome.SUCCESS, drive.log()


def test_a_stale_lease_ends_the_job(driving: Driving) -> None:
    ttl = 8.0  # many times the pause between two renewals, however slow this machine is
    drive = driving.start({"job.py": SLEEPS}, lease_ttl=ttl)
    seqs = itertools.count()

    def renewed_until_it_runs() -> bool:
        drive.renew(next(seqs), ttl=ttl)
        return "here we are" in drive.log()

    drive.wait(renewed_until_it_runs)
    until = time.monotonic() + ttl + 1.0
    while time.monotonic() < until:  # longer than its time, and it lives
        drive.renew(next(seqs), ttl=ttl)
        time.sleep(0.2)
    assert drive.process.poll() is None
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.ORCHESTRATOR_LOST
    assert record.failure.retryable


def test_an_unreadable_lease_is_no_evidence(driving: Driving) -> None:
    def unreadable(attempt: AttemptDir) -> None:
        # Reading a folder is an error, and so no absence.
        (Path(attempt.store.url.removeprefix("file://")) / attempt.path / "lease.json").mkdir()

    drive = running(driving, lease_ttl=0.5, before=unreadable)
    time.sleep(2)
    assert drive.process.poll() is None
    drive.process.send_signal(signal.SIGTERM)
    assert drive.record().outcome is Outcome.CANCELLED


def test_closing_in_mid_job_ends_it(driving: Driving) -> None:
    drive = running(driving, lease_ttl=60.0)
    drive.attempt.rundir.create("closing.json", Closing(at=Timestamp(time.time()), by="test", reason="enough"))
    record = drive.record()
    assert record.outcome is Outcome.CANCELLED
    assert record.failure is not None
    assert any("enough" in line for line in record.failure.evidence)


def test_cancel_json_ends_it_where_no_signal_reaches(driving: Driving) -> None:
    drive = running(driving, lease_ttl=60.0)
    drive.attempt.create("cancel.json", Closing(at=Timestamp(time.time()), by="collect", reason="the task has ended"))
    record = drive.record()
    assert record.outcome is Outcome.CANCELLED
    assert record.failure is not None and "collect: the task has ended" in " ".join(record.failure.evidence)


def test_an_attempt_runs_at_most_once_however_often_it_is_started(driving: Driving) -> None:
    drive = running(driving)
    again = subprocess.run(
        [sys.executable, "-m", "mayfly.driver", drive.attempt.rundir.url, "run_job", "1"],
        env={**os.environ, "PYTHONPATH": str(LIB)},
        cwd=drive.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert again.returncode == 17
    assert "another driver has taken this attempt" in again.stderr
    assert drive.process.poll() is None


def test_closing_before_the_start_runs_nothing(driving: Driving) -> None:
    def close(attempt: AttemptDir) -> None:
        attempt.rundir.create("closing.json", Closing(at=Timestamp(time.time()), by="test"))

    drive = driving.start({"job.py": "print('here we are')"}, before=close)
    assert drive.record().outcome is Outcome.CANCELLED
    assert "here we are" not in drive.log()


def test_expiry_ends_the_job(driving: Driving) -> None:
    drive = driving.run({"job.py": SLEEPS}, expires_at=Timestamp(time.time() + 6))
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.ORCHESTRATOR_LOST
    assert any("age" in line for line in record.failure.evidence)


def test_a_start_that_takes_too_long(driving: Driving) -> None:
    files, settings = held_start(driving.folder / "never")
    drive = driving.run({"job.py": SLEEPS, **files}, dask=settings, limits=Limits(start=1.0, job=60, stall=0))
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.START_FAILED
    assert record.exit_code is None


def test_workers_that_cannot_start(driving: Driving) -> None:
    drive = driving.run({"job.py": SLEEPS}, dask={"distributed.nanny.preload": ["no_such_module"]})
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.START_FAILED
    assert "here we are" not in drive.log()


def test_script_memory_is_bounded(driving: Driving) -> None:
    hungry = """
import time
data = []
while len(data) < 50:  # a machine on which nobody looks for a while has no endless memory
    data.append(bytearray(20_000_000)); time.sleep(0.05)
time.sleep(300)
"""
    drive = driving.run({"job.py": hungry}, script_memory=200_000_000)
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.OUT_OF_MEMORY_SCRIPT
    assert record.peaks.script_memory > 200_000_000


# ---------------------------------------------------------------- sudden deaths


def test_host_killed(driving: Driving) -> None:
    drive = running(driving, HANGS_ON_A_WORKER)
    everyone = drive.descendants()
    drive.child("mayfly.driver.host").kill()
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.SCHEDULER_DIED
    assert_gone(everyone)


def test_script_killed(driving: Driving) -> None:
    drive = running(driving, HANGS_ON_A_WORKER)
    everyone = drive.descendants()
    drive.child("job.py").kill()
    record = drive.record()
    assert record.outcome is Outcome.FAILED
    assert record.exit_code == -signal.SIGKILL
    assert_gone(everyone)


def test_supervisor_killed_takes_everybody_along_and_loses_seconds(driving: Driving) -> None:
    drive = running(driving, HANGS_ON_A_WORKER)
    drive.wait_for_phase(Phase.RUN)  # written by itself: it may come later than the line
    everyone = drive.descendants()
    drive.process.kill()
    drive.process.wait(PATIENCE)
    assert_gone(everyone)
    assert drive.attempt.record() is None
    assert "here we are" in drive.log()
    status = drive.status()
    assert status is not None
    assert status.phase is Phase.RUN


def test_a_worker_that_is_killed_is_replaced_and_its_work_done_again(driving: Driving) -> None:
    script = """
import time
from dask.distributed import Client, wait

def work(i):
    time.sleep(0.02)
    return i

client = Client()
futures = client.map(work, range(60))
wait(futures)
print("here we are", flush=True)
while client.submit(time.time, pure=False).result() and len(client.who_has(futures)) and not lost():
    time.sleep(0.2)
print(sum(client.gather(futures)))
""".replace("not lost()", "client.run(__import__('os').getpid, on_error='return') == pids").replace(
        'print("here', "pids = client.run(__import__('os').getpid)\nprint(\"here"
    )
    drive = running(driving, script)
    (worker,) = [one for one in drive.descendants() if any(w.startswith("dask worker") for w in command_line(one)[:1])]
    worker.kill()
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS, drive.log()
    assert record.workers_lost == 1
    assert "lost the worker" in drive.log()
    (long,) = [line for line in drive.log().splitlines() if "already computed task(s)" in line]
    assert len(long) < 700, "Dask's own words name each of them"
    assert "1770" in drive.log()
    # The probes' results can be lost with the worker, too; what is left are the first times.
    assert 0 < record.tasks.recomputed <= record.tasks.done - 60


def test_a_module_that_kills_the_scheduler(driving: Driving) -> None:
    """Dask unpacks graphs in the scheduler's process: a module that ends the process there ends the scheduler."""
    module = """
import sys
if "mayfly.driver.host" in " ".join(sys.orig_argv):
    import os
    os._exit(17)

class Thing:
    pass
"""
    script = """
from dask.distributed import Client
import bomb, dask
client = Client()
print(dask.delayed(bomb.Thing)().compute())
"""
    drive = driving.run({"job.py": script, "bomb.py": module})
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.SCHEDULER_DIED, drive.log()


@pytest.mark.parametrize("adopt", [True, False])
def test_client_shutdown_at_the_end_is_a_success_either_way(driving: Driving, adopt: bool) -> None:
    script = "from dask.distributed import Client\nc = Client()\nprint(c.submit(abs, -3).result())\nc.shutdown()\n"
    drive = driving.run({"job.py": script}, adopt=adopt)
    assert drive.record().outcome is Outcome.SUCCESS, drive.log()
    assert ("[mayfly] client.shutdown()" in drive.log()) is adopt


NO_FOLDER = """
import os, sys
os.mkdir("gone")
os.chdir("gone")
os.rmdir("../gone")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_no_scratch_space_leaves_a_record_too(driving: Driving) -> None:
    record = driving.run({"job.py": SLEEPS}, through=("-c", NO_FOLDER)).record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.START_FAILED
