"""The carrier as a plain process: it starts the driver, and the driver ends when it is gone, whatever took it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mayfly.contract import FailureClass, Outcome
from scripts.cloud.object_store import ObjectStore
from tests.driver.driving import PATIENCE, command_line
from tests.emulators.crooked import Fault, crooked
from tests.init_actions.carrying import CARRIER, PRINTS_ITS_WORLD, Carried, Carrying, world

SLEEPS = """
import time
print("here we are", flush=True)
time.sleep(300)
"""


def test_it_is_understood_by_the_oldest_python_that_may_run_it() -> None:
    ast.parse(CARRIER.read_text(), feature_version=(3, 9))
    lines = [line for line in CARRIER.read_text().splitlines() if line.startswith(("import ", "from "))]
    modules = {line.split()[1].partition(".")[0] for line in lines}
    assert modules <= set(sys.stdlib_module_names)


def test_a_job_that_succeeds(carrying: Carrying) -> None:
    strange = {"PYSPARK_GATEWAY_SECRET": "s3cret", "SPARK_HOME": "/x", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    carried = carrying.start(PRINTS_ITS_WORLD, env=strange, job="schöner-job")
    shown, _ = carried.process.communicate(timeout=PATIENCE)
    assert carried.process.returncode == 0, carried.log() + carrying.errors(carried)
    assert carried.record().outcome is Outcome.SUCCESS
    assert "mayfly: driver" in shown and "/jobs/schöner-job/1/" in shown
    executable, path, variables = world(carried.log())
    assert executable == sys.executable
    assert "/nowhere" not in path
    assert not [name for name in variables if name.startswith(("PYSPARK", "SPARK", "MAYFLY_CARRIER"))]
    carried.wait_until_gone()
    assert carrying.left_over(carried) == []


OLD_HEADERS = """
import os, runpy, sys
del os.pidfd_open, os.memfd_create, os.getrandom
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_python_that_was_built_for_old_kernels(carrying: Carrying) -> None:
    """As conda's, on images of Dataproc: it lacks what their headers do not know."""
    carried = carrying.start("print(1 + 1)", through=(sys.executable, "-c", OLD_HEADERS))
    shown, _ = carried.process.communicate(timeout=PATIENCE)
    assert carried.process.returncode == 0, shown + carried.log() + carrying.errors(carried)
    assert carried.record().outcome is Outcome.SUCCESS


def test_a_run_directory_in_a_bucket(carrying: Carrying, bucket: str) -> None:
    carried = carrying.start("print(1 + 1)", staging=f"{bucket}/stage")
    carried.process.communicate(timeout=PATIENCE)
    assert carried.process.returncode == 0, carried.log() + carrying.errors(carried)
    assert carried.record().outcome is Outcome.SUCCESS
    gone = carrying.start("", staging=f"{bucket}/other", code="code/none.zip")
    shown, _ = gone.process.communicate(timeout=PATIENCE)
    assert gone.process.returncode == 2
    assert f"{bucket}/other/code/none.zip is missing; clear the run to plan anew" in shown


def test_what_breaks_off_is_fetched_again(carrying: Carrying, bucket: str, object_store: ObjectStore) -> None:
    with crooked(object_store.url) as line:
        line.faults.append(Fault(method="GET", where="alt=media", what="half", after=True))
        carried = carrying.start("", staging=f"{bucket}/stage", env={"STORAGE_EMULATOR_HOST": line.url})
        shown, _ = carried.process.communicate(timeout=PATIENCE)
    assert carried.process.returncode == 0, shown + carried.log() + carrying.errors(carried)


def test_a_job_that_fails(carrying: Carrying) -> None:
    carried = carrying.start("raise SystemExit(5)")
    carried.process.communicate(timeout=PATIENCE)
    assert carried.process.returncode == 1
    record = carried.record()
    assert (record.outcome, record.exit_code) == (Outcome.FAILED, 5)
    assert carrying.left_over(carried) == []


def test_sigterm_is_passed_on(carrying: Carrying) -> None:
    carried = carrying.start(SLEEPS)
    carried.wait_for_line("here we are")
    carried.process.terminate()
    carried.process.communicate(timeout=PATIENCE)
    assert carried.process.returncode == 1
    failure = carried.record().failure
    assert failure is not None and failure.cls is FailureClass.CANCELLED
    assert "SIGTERM received" in failure.evidence[0]
    carried.wait_until_gone()


def kill(carried: Carried) -> None:
    carried.process.kill()


def close_its_output(carried: Carried) -> None:
    assert carried.process.stdout is not None
    carried.process.stdout.close()


@pytest.mark.parametrize("end", [kill, close_its_output])
def test_a_carrier_that_is_gone_cancels(carrying: Carrying, end: Callable[[Carried], None]) -> None:
    carried = carrying.start(SLEEPS)
    carried.wait_for_line("here we are")
    end(carried)
    record = carried.record()
    assert record.outcome is Outcome.CANCELLED
    assert record.failure is not None
    assert "carrier gone" in record.failure.evidence[0]
    carried.process.wait(PATIENCE)
    carried.wait_until_gone()


def test_a_parent_that_is_gone_cancels(carrying: Carrying) -> None:
    """As when the JVM is killed: the carrier itself lives on, and its output has other readers."""
    shell = ("sh", "-c", '"$@" 2>/dev/null >carrier.out & echo $!; wait', "sh", sys.executable)
    carried = carrying.start(SLEEPS, through=shell)
    carried.wait_for_line("here we are")
    carried.process.kill()
    record = carried.record()
    assert record.failure is not None
    assert "carrier gone" in record.failure.evidence[0]
    carried.wait_until_gone()
    assert carrying.left_over(carried) == []


def test_a_carrier_that_is_gone_before_the_driver_is_there_leaves_a_record(carrying: Carrying) -> None:
    code = carrying.folder / "carried-0" / "staging" / "code"
    code.mkdir(parents=True)
    os.mkfifo(code / "slow.zip")  # whoever reads it waits until somebody writes
    carried = carrying.start(SLEEPS, code="code/slow.zip")
    carried.wait(lambda: any("--driver" in command_line(process) for process in carried.everyone()))
    carried.process.kill()
    (whole,) = [path for path in code.glob("*.zip") if path.name != "slow.zip"]
    (code / "slow.zip").write_bytes(whole.read_bytes())
    record = carried.record()
    assert record.outcome is Outcome.CANCELLED
    assert record.exit_code is None
    carried.wait_until_gone()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"python": "/opt/mayfly/nowhere/python3"}, "cannot start /opt/mayfly/nowhere/python3"),
        ({"code": "code/none.zip"}, "code/none.zip"),
    ],
)
def test_what_cannot_be_started_says_why(carrying: Carrying, given: dict[str, str], said: str) -> None:
    carried = carrying.start(SLEEPS, **given)  # type: ignore[arg-type]
    shown, _ = carried.process.communicate(timeout=PATIENCE)
    assert carried.process.returncode == 2
    assert said in shown + carrying.errors(carried)
    assert carrying.left_over(carried) == []


def test_wrong_arguments(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(CARRIER), "file:///x/runs/y"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "usage: carrier.py" in done.stderr
    assert list(tmp_path.iterdir()) == []
