"""One good job, and what it leaves behind."""

from __future__ import annotations

import json
import os
import stat

import pytest

from mayfly.contract import Outcome, Phase
from tests.driver.driving import PATIENCE, Drive, Driving

ODD_ARGUMENTS = ("it's", '"quoted"', "$(touch pwned)", "`id`", "two\nlines", "größe ✓", "", "--flag=$HOME", "a b")
ODD_ENVIRONMENT = {"GREETING": 'it\'s "$(id)" `x`\n$HOME ✓', "EMPTY": ""}

SCRIPT = """
import json, os, sys
from pathlib import Path
from dask.distributed import Client, wait
import dask

def main():
    tls = os.environ["DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"]
    client = Client()
    futures = client.map(lambda i: i + 1, range(30), key="add")
    wait(futures)
    print("SCRIPT", json.dumps({
        "argv": sys.argv, "name": __name__, "cwd": os.getcwd(), "path0": os.environ["PYTHONPATH"].split(":")[0],
        "env": {key: os.environ[key] for key in ("GREETING", "EMPTY")}, "sum": sum(client.gather(futures)),
        "key_mode": os.stat(tls).st_mode, "address": os.environ["DASK_SCHEDULER_ADDRESS"],
        "stdin": sys.stdin.read(), "setting": dask.config.get("distributed.worker.memory.spill"),
        "scheduler": client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.local_directory),
        "foreign": os.environ.get("DASK_FOREIGN"), "data": Path(__file__).with_name("data.txt").read_text(),
    }))
    print("to stderr", file=sys.stderr)
    client.submit(print, "from a task").result()

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def good(shared_driving: Driving) -> Drive:
    return shared_driving.run(
        {"sub/job.py": SCRIPT, "sub/data.txt": "lookup"},
        script="sub/job.py",
        minimum=2,
        args=ODD_ARGUMENTS,
        env=ODD_ENVIRONMENT,
        dask={"distributed.worker.memory.spill": 0.65, "distributed": {"worker": {"memory": {"pause": 0.77}}}},
        environment={"DASK_FOREIGN": "1", "DASK_SCHEDULER_ADDRESS": "tcp://127.0.0.1:1"},
    )


def said(drive: Drive) -> dict[str, object]:
    line = next(line for line in drive.log().splitlines() if line.startswith("SCRIPT "))
    said: dict[str, object] = json.loads(line.removeprefix("SCRIPT "))
    return said


def test_the_record_says_what_happened(good: Drive) -> None:
    record = good.record()
    assert record.outcome is Outcome.SUCCESS, good.log()
    assert record.failure is None
    assert record.exit_code == 0
    assert set(record.phases) == {str(phase) for phase in Phase} - {str(Phase.ENDED)}
    assert record.tasks.done >= 31
    assert record.tasks.recomputed == 0
    assert record.peaks.workers == 2
    assert record.peaks.script_memory > 10_000_000
    assert record.peaks.host_memory > 10_000_000
    assert record.workers_lost == 0
    assert {"python", "dask", "distributed"} <= set(record.versions)
    assert record.ended_at > record.started_at
    assert record.notes == ()
    assert good.process.returncode == 0


def test_arguments_arrive_unchanged(good: Drive) -> None:
    assert said(good)["argv"] == [str(good.folder / "code/job/sub/job.py"), *ODD_ARGUMENTS]


def test_the_script_sees_an_ordinary_world(good: Drive) -> None:
    seen = said(good)
    job = str(good.folder / "code/job")
    assert seen["name"] == "__main__"
    assert seen["cwd"] == job
    assert seen["path0"] == job
    assert seen["env"] == ODD_ENVIRONMENT
    assert seen["stdin"] == ""
    assert seen["data"] == "lookup"
    assert seen["sum"] == sum(range(1, 31))


def test_dask_keeps_its_files_below_the_drivers(good: Drive) -> None:
    assert str(said(good)["scheduler"]).startswith(f"{good.folder}/")


def test_dask_speaks_tls_with_private_keys(good: Drive) -> None:
    seen = said(good)
    assert str(seen["address"]).startswith("tls://")
    assert stat.S_IMODE(int(str(seen["key_mode"]))) == 0o600


def test_dask_settings_are_the_jobs_and_not_the_surroundings(good: Drive) -> None:
    assert said(good)["setting"] == 0.65
    assert said(good)["foreign"] is None


def test_output_of_script_and_workers_is_in_the_log(good: Drive) -> None:
    log = good.log()
    assert "to stderr\n" in log
    assert "] from a task\n" in log
    assert "[worker " in log
    assert "SyntaxWarning" not in log


def test_live_log_and_whole_log_are_the_same(good: Drive) -> None:
    assert (good.attempt.store.get(f"{good.attempt.path}/driver.log") or b"").decode() == good.log()


def test_the_last_status_says_ended(good: Drive) -> None:
    status = good.status()
    assert status is not None
    assert status.phase is Phase.ENDED
    assert status.tasks.done >= 31


def test_metrics_are_lines_of_json(good: Drive) -> None:
    lines = (good.attempt.metrics_segment(0) or b"").decode().splitlines()
    sample = json.loads(lines[0])
    assert set(sample) == {
        *("t", "at", "workers", "memory", "memory_limit", "spilled", "cpu_workers", "cpu_script", "script_memory"),
        *("host_memory", "done", "running", "waiting", "failed"),
    }


def test_dask_report_and_logs_are_kept(good: Drive) -> None:
    report = good.attempt.store.get(f"{good.attempt.path}/dask-report.html")
    assert report is not None
    assert b"Dask Performance Report" in report
    names = {path.rpartition("/")[2] for path in good.attempt.store.list(f"{good.attempt.path}/logs/")}
    assert names == {"scheduler.txt", "worker-0.txt", "worker-1.txt"}


def test_nothing_is_left_and_all_was_listed(good: Drive) -> None:
    listed = json.loads((good.folder / "processes.json").read_text())
    assert listed == [] or all(not os.path.exists(f"/proc/{pid}") for pid, _ in listed)
    assert not (good.folder / "code/job/pwned").exists()


def test_a_second_driver_of_an_ended_attempt_does_nothing(good: Drive, driving: Driving) -> None:
    before = good.attempt.store.list("")
    second = driving.start(
        {"job.py": "print('again')"}, before=lambda attempt: attempt.create("record.json", good.record())
    )
    assert second.process.wait(PATIENCE) == 2
    assert "has ended before" in second.output()
    assert good.attempt.store.list("") == before


def test_code_is_fetched_from_the_store_where_no_backend_did(driving: Driving) -> None:
    from mayfly.staging.bundle import make_bundle
    from mayfly.staging.rundir import AttemptDir

    job = driving.folder / "fetched"
    job.mkdir()
    (job / "job.py").write_text("import subprocess; subprocess.run(['./tool.sh'], check=True)")
    (job / "tool.sh").write_text("#!/bin/sh\necho fetched\n")
    (job / "tool.sh").chmod(0o755)

    def upload(attempt: AttemptDir) -> None:
        attempt.store.put("code/abc.zip", make_bundle(job)[1])

    drive = driving.start({}, before=upload, code="code/abc.zip", environment={"MAYFLY_CODE_DIR": ""})
    assert drive.record().outcome is Outcome.SUCCESS, drive.log()
    assert "fetched" in drive.log()
    assert "no task ran on the cluster" in drive.record().notes[0]
