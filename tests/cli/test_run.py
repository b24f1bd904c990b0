"""`mayfly run`: whole runs with real clusters, and the ends that people and accidents give them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import psutil

from .conftest import PATIENCE, TARGETS, WAITS, Cli

SQUARES = """
import json, sys
from dask.distributed import Client
if __name__ == "__main__":
    client = Client()
    total = sum(client.gather(client.map(lambda x: x * x, range(50))))
    print(json.dumps({"total": total, "args": sys.argv[1:]}))
"""
NASTY = """
args:
  - "{{ params.rows + 1 }}"
  - "{{ run_date }}|{{ job }}|{{ target }}"
  - "$(id) 'x' \\"y\\" ü\\nz"
  - "{{ outputs.table }}"
outputs: {table: data/table}
params:
  rows: {type: integer, default: 5, minimum: 1, maximum: 1000}
"""


def test_a_run_from_plan_to_receipt(cli: Cli) -> None:
    cli.add_job("squares", SQUARES, NASTY)
    done = cli("run", "squares", "--param", "rows=41", "--run-date", "2026-01-31")
    assert done.returncode == 0, done.stdout + done.stderr
    said = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert said["total"] == sum(x * x for x in range(50))
    table = str(cli.home / "data" / "table")
    assert said["args"] == ["42", "2026-01-31|squares|local", "$(id) 'x' \"y\" ü\nz", table]
    name = cli.only_run().name
    assert cli.receipt().rule.startswith("deleted")
    page = cli.home / ".mayfly/staging/runs" / name / "report.html"
    assert page.exists() and str(page) in done.stdout
    assert "\x1b" not in done.stdout + done.stderr, "no control characters where nobody watches"

    listed = cli("ls").stdout.splitlines()
    assert listed[0].split() == ["RUN", "JOB", "TARGET", "STATE", "CLUSTER", "AGE"]
    assert listed[1].split()[:5] == [name, "squares", "local", "closed", "-"]
    assert listed[1].endswith("success")
    (as_json,) = [json.loads(line) for line in cli("ls", "--json").stdout.splitlines()]
    assert (as_json["run"], as_json["state"]) == (name, "closed")
    assert as_json["receipt"]["owner"] == as_json["plan"]["owner"]

    shown = cli("show", name[: len("mayfly-squares-") + 2])
    assert shown.returncode == 0
    assert "squares: success" in shown.stdout and str(page) in shown.stdout


def test_a_failing_script_is_explained_and_deleted(cli: Cli) -> None:
    cli.add_job("fails", "print('so far, so good')\nraise ValueError('no such column: fare')\n")
    done = cli("run", "fails")
    assert done.returncode == 1
    assert "so far, so good" in done.stdout
    assert "user error" in done.stderr and "ValueError: no such column: fare" in done.stderr
    assert cli.receipt().rule.startswith("deleted")
    assert cli("ls").stdout.splitlines()[1].endswith("user error")


def test_new_writes_a_job_that_runs(cli: Cli) -> None:
    assert cli("new", "trips").returncode == 0
    assert cli("validate").returncode == 0
    done = cli("run", "trips")
    assert done.returncode == 0, done.stdout + done.stderr
    again = cli("new", "trips")
    assert again.returncode == 2 and "trips" in again.stderr


def test_progress_is_live_on_a_terminal(cli: Cli) -> None:
    go = cli.home / "go"
    cli.add_job("waits", WAITS, f"args: {json.dumps([str(go)])}\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mayfly", "run", "waits"],
        env=cli.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the last writer has closed
            break
        if not part:
            break
        seen += part
        if b"1/1 workers" in seen:
            go.touch()
    os.close(ours)
    assert process.wait(PATIENCE) == 0
    assert b"\r\x1b[K" in seen
    assert go.exists(), "1/1 workers"


def test_a_reader_that_goes_does_not_keep_the_run_from_its_end(cli: Cli) -> None:
    cli.add_job("waits", WAITS, "args: ['.']\n")
    done = subprocess.run(
        f"'{sys.executable}' -m mayfly run waits | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env=cli.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    assert "Broken" not in done.stderr
    assert cli.receipt().rule.startswith("deleted")


# ---------------------------------------------------------------- interrupted


def test_ctrl_c_ends_the_job_and_proves_the_deletion(cli: Cli) -> None:
    cli.add_job("waits", WAITS)
    process = cli.start("run", "waits")
    cli.wait_for("working")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert "Once more leaves at once" in cli.err.read_text()
    assert cli.record().outcome == "cancelled"
    assert cli.receipt().rule.startswith("deleted")
    assert (cli.home / ".mayfly/staging/runs" / cli.only_run().name / "report.html").exists()


def test_sigterm_does_the_same(cli: Cli) -> None:
    cli.add_job("waits", WAITS)
    process = cli.start("run", "waits")
    cli.wait_for("working")
    process.terminate()
    assert process.wait(PATIENCE) == 143
    assert cli.receipt().rule.startswith("deleted")


def test_a_second_ctrl_c_leaves_and_delete_finishes(cli: Cli) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS
    go = cli.home / "go"
    cli.add_job("stubborn", stubborn, f"args: {json.dumps([str(go)])}\n")
    # The second one comes while the first is still obeyed, on any machine.
    (cli.home / "config" / "targets.yaml").write_text(TARGETS.replace("stop_grace: 4s", "stop_grace: 10m"))
    process = cli.start("run", "stubborn")
    cli.wait_for("working")
    process.send_signal(signal.SIGINT)
    cli.wait_for("Once more leaves at once", file=cli.err)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    name = cli.only_run().name
    assert f"mayfly delete {name}" in cli.err.read_text().splitlines()[-1]
    assert cli.only_run().receipt() is None
    go.touch()
    done = cli("delete", name, "--reason", "left behind")
    assert done.returncode == 0, done.stderr
    assert cli.receipt().by.startswith("mayfly delete")


def test_a_killed_run_is_taken_up_again_by_its_id(cli: Cli) -> None:
    go = cli.home / "go"
    cli.add_job("waits", WAITS, f"args: {json.dumps([str(go)])}\n")
    first = cli.start("run", "waits", "--run-id", "nightly-7")
    cli.wait_for("working")
    first.kill()
    first.wait()
    second = cli.start("run", "waits", "--run-id", "nightly-7")
    cli.wait_for("reattached to attempt 1")
    go.touch()
    assert second.wait(PATIENCE) == 0, cli.out.read_text() + cli.err.read_text()
    said = cli.out.read_text()
    assert "adopted this run's open generation" in said
    assert "done" in said.splitlines()
    assert cli.only_run().last_attempt("run_job") == 1


# ---------------------------------------------------------------- delete, reap


def driver_processes(name: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MAYFLY_CLUSTER") == name and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def test_delete_ends_what_a_killed_run_left(cli: Cli) -> None:
    cli.add_job("waits", WAITS)
    process = cli.start("run", "waits")
    cli.wait_for("working")
    process.kill()
    process.wait()
    name = cli.only_run().name
    assert driver_processes(name)
    row = cli("ls").stdout.splitlines()[1]
    assert row.split()[:5] == [name, "waits", "local", "open", "running"]
    assert cli("reap", "--dry-run").returncode == 0, "young, and perhaps somebody comes back for it"
    done = cli("delete", name)
    assert done.returncode == 0, done.stderr
    assert not driver_processes(name)
    assert cli.record().outcome == "cancelled"
    assert cli("delete", name).returncode == 0, "again: nothing to do"


def test_reap_ends_what_has_expired(cli: Cli) -> None:
    cli.add_job("waits", WAITS)
    process = cli.start("run", "waits")
    cli.wait_for("working")
    process.kill()
    process.wait()
    run = cli.only_run()
    path = cli.home / ".mayfly/staging/runs" / run.name / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"expires_at": "2026-01-01T00:00:00Z"}))
    only_looks = cli("reap", "--dry-run")
    assert only_looks.returncode == 3
    assert "expired" in only_looks.stdout and driver_processes(run.name)
    done = cli("reap")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not driver_processes(run.name)
    assert cli.receipt().by.startswith("mayfly reap")
    assert cli("reap").stdout.strip() == "nothing to reap"
