"""Scripts that do what scripts do. Each ends with a record, an explanation, and nothing left behind."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from mayfly.contract import FailureClass, Outcome, Timing
from tests.driver.driving import PATIENCE, UNTIL, Driving


def test_syntax_error_is_found_before_anything_runs(driving: Driving) -> None:
    drive = driving.run({"job.py": "print('ran')\nthis is no python\n"})
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.USER_ERROR
    assert record.exit_code is None
    assert any("line 2" in line for line in record.failure.evidence)
    assert not any(line == "ran" for line in drive.log().splitlines())


@pytest.mark.parametrize("script", ["missing.py", "folder"])
def test_a_script_that_is_not_there(driving: Driving, script: str) -> None:
    record = driving.run({"folder/other.py": ""}, script=script).record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.USER_ERROR
    assert any(script in line for line in record.failure.evidence)


@pytest.mark.parametrize(
    ("script", "code", "evidence"),
    [
        ("import sys; print('bye'); sys.exit(3)", 3, "bye"),
        ("import os; print('bye', flush=True); os._exit(4)", 4, "bye"),
        ("import ender", 5, "ender was here"),
        ("def f():\n    return {}['nothing']\n\nf()", 1, "KeyError: 'nothing'"),
        ("from dask.distributed import Client\nClient().submit(lambda: 1 / 0).result()", 1, "ZeroDivisionError"),
    ],
)
def test_bad_ends_are_the_users(driving: Driving, script: str, code: int, evidence: str) -> None:
    ender = "import os; print('ender was here', flush=True); os._exit(5)"
    drive = driving.run({"job.py": script, "ender.py": ender})
    record = drive.record()
    assert record.exit_code == code
    assert record.failure is not None
    assert record.failure.cls is FailureClass.USER_ERROR
    assert any(evidence in line for line in record.failure.evidence), record.failure
    assert drive.process.returncode == 1


DAEMON = """
import os, sys, time
if os.fork():
    while not os.path.exists({path!r}):
        time.sleep(0.05)
    print("parent done")
    sys.exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for fd in range(256):
    try:
        os.close(fd)
    except OSError:
        pass
code = "import os, sys, time; open(sys.argv[1] + '.new', 'w').write(str(os.getpid()))"
code += "; os.rename(sys.argv[1] + '.new', sys.argv[1]); time.sleep(300)"
os.execve(sys.executable, ["innocent", "-c", code, {path!r}], {})
"""


def test_a_daemon_without_a_trace_of_us_is_ended_too(driving: Driving) -> None:
    path = str(driving.folder / "daemon.pid")
    drive = driving.start({"job.py": DAEMON.replace("{path!r}", repr(path))})
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS, drive.log()
    assert "left behind" in drive.log()
    pid = int(Path(path).read_text())
    assert not psutil.pid_exists(pid)


def test_a_job_on_the_cluster_leaves_its_processes_listed(driving: Driving) -> None:
    """The list is for whoever has to end them when the supervisor was killed."""
    drive = driving.start({"job.py": "import subprocess, sys; subprocess.run(['sleep', '300'])"})

    def listed() -> bool:
        try:
            known = json.loads((drive.folder / "processes.json").read_text())
        except (OSError, ValueError):
            return False
        names = []
        for pid, _ in known:
            try:
                names.append(psutil.Process(pid).name())
            except psutil.Error:  # ended meanwhile
                continue
        return "sleep" in names and len(names) >= 3

    drive.wait(listed)
    everyone = drive.descendants()
    drive.process.terminate()
    assert drive.record().outcome is Outcome.CANCELLED
    assert psutil.wait_procs(everyone, timeout=PATIENCE)[1] == []


def test_100_mb_of_output(driving: Driving) -> None:
    script = """
import sys
print("first line")
block = ("z" * 99 + "\\n") * 10_000
for _ in range(100):
    sys.stdout.write(block)
print("last line")
"""
    drive = driving.run({"job.py": script})
    assert drive.record().outcome is Outcome.SUCCESS
    live = drive.log()
    assert len(live) < 10 << 20
    assert "bytes left out here" in live
    whole = drive.attempt.store.get(f"{drive.attempt.path}/driver.log") or b""
    assert len(whole) < 51 << 20
    assert b"first line\n" in whole[:2000]
    assert b"last line\n" in whole[-2000:]


def test_binary_output(driving: Driving) -> None:
    script = """
import os, sys
sys.stdout.buffer.write(bytes(range(256)) * 2000)
sys.stdout.buffer.write(b"\\nafter all that\\n")
"""
    drive = driving.run({"job.py": script})
    assert drive.record().outcome is Outcome.SUCCESS
    assert "after all that\n" in drive.log()


def test_a_job_without_a_task_on_the_cluster_is_told_so_while_it_runs(driving: Driving) -> None:
    script = """
import dask
import dask.array as da
with dask.config.set(scheduler="threads"):
    print(da.ones(10).sum().compute())
"""
    timing = Timing(status=0.3, segment=0.3, stop_grace=2.0, no_tasks=1.5)
    go = driving.folder / "go"
    drive = driving.start({"job.py": script + UNTIL.format(go=str(go))}, timing=timing)
    drive.wait_for_line("no task ran on the cluster in the first")
    go.touch()
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS
    assert len(record.notes) == 1
    assert "Client()" in record.notes[0]


def test_a_client_left_open_with_work_in_flight(driving: Driving) -> None:
    script = """
import time
from dask.distributed import Client
client = Client()
futures = client.map(time.sleep, [60] * 10)
client.submit(abs, -1, priority=10)
print("done with it")
"""
    drive = driving.run({"job.py": script}, cores=2)
    assert drive.record().outcome is Outcome.SUCCESS, drive.log()


def test_a_broken_worker_print_does_not_lose_the_last_words(driving: Driving) -> None:
    """What a worker wrote before a sudden death is in the log."""
    script = """
import os
from dask.distributed import Client

def dies(i):
    print("last words of a worker", flush=True)
    os.write(2, b"and of its C code\\n")
    os._exit(9)

Client().submit(dies, 1).result()
"""
    drive = driving.run({"job.py": script}, dask={"distributed.scheduler.allowed-failures": 1})
    record = drive.record()
    log = drive.log()
    assert "[worker 0] last words of a worker" in log
    assert "[worker 0] and of its C code" in log
    assert record.failure is not None
    assert record.failure.cls is FailureClass.WORKER_LOST, record.failure
    assert record.workers_lost == 2


def test_a_worker_beyond_its_memory(driving: Driving) -> None:
    script = """
import time
from dask.distributed import Client

def hungry(i):
    import psutil
    me, data = psutil.Process(), []
    while me.memory_info().rss < 260_000_000:
        data.append(bytearray(b"x") * 10_000_000)
    time.sleep(3)  # several heartbeats, which tell of it
    for _ in range(100):
        data.append(bytearray(b"x") * 10_000_000)
        time.sleep(0.03)
    time.sleep(300)

Client().submit(hungry, 1).result()
"""
    drive = driving.run({"job.py": script}, memory=400_000_000, dask={"distributed.scheduler.allowed-failures": 0})
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.OUT_OF_MEMORY_WORKER, (record.failure, drive.log())
    assert record.peaks.worker_memory > 200_000_000


def put_in_the_way(folder: Path) -> list[Path]:
    """A file where this folder was, also for root, who may write anywhere; where what was in it lies now. Whoever
    writes meanwhile makes the folder anew."""
    folder.with_name("file").write_text("in the way")
    away: list[Path] = []
    while True:
        away.append(folder.with_name(f"away-{len(away)}"))
        os.rename(folder, away[-1])
        try:
            os.rename(folder.with_name("file"), folder)
        except IsADirectoryError:
            continue
        return away


@pytest.mark.parametrize("when", ["while Dask starts", "in mid-job"])
def test_a_staging_folder_that_cannot_be_written(driving: Driving, when: str) -> None:
    """As a full disk: writes fail, reads work. The job runs to its end; a folder that heals gets the record."""
    go, ended = driving.folder / "go", driving.folder / "ended"
    script = f"print('working', flush=True){UNTIL.format(go=str(go))}Path({str(ended)!r}).touch()"
    timing = Timing(status=0.3, segment=0.3, stop_grace=2.0, last_write=PATIENCE)
    drive = driving.start({"job.py": script}, timing=timing)
    folder = drive.folder / "staging" / drive.attempt.path
    drive.wait(lambda: (folder / "status.json").exists())
    if when == "in mid-job":
        drive.wait_for_line("working")
    away = put_in_the_way(folder)
    go.touch()
    drive.wait(ended.exists)
    time.sleep(1)  # for the first tries to write a record
    folder.unlink()
    for part in away:
        for path in part.rglob("*"):
            if path.is_file() and not (target := folder / path.relative_to(part)).exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS
    assert "working" in drive.log()


def test_a_staging_folder_that_never_heals(driving: Driving) -> None:
    timing = Timing(status=0.3, segment=0.3, last_write=2.0)
    go = driving.folder / "go"
    drive = driving.start({"job.py": f"print('working', flush=True){UNTIL.format(go=str(go))}"}, timing=timing)
    folder = drive.folder / "staging" / drive.attempt.path
    drive.wait(lambda: (folder / "status.json").exists())
    put_in_the_way(folder)
    everyone = drive.descendants()
    go.touch()
    assert drive.process.wait(PATIENCE) == 3
    assert "no record" in drive.output()
    assert psutil.wait_procs(everyone, timeout=PATIENCE)[1] == []
