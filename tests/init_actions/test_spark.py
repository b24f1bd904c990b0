"""The carrier below the real spark-submit, as Dataproc runs it: whatever happens to the JVM, the driver ends well."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from mayfly.contract import FailureClass, Outcome
from scripts.cloud import spark
from tests.driver.driving import PATIENCE
from tests.init_actions.carrying import CARRIER, Carried, Carrying

WAITS = """
import time
from dask.distributed import Client
client = Client()
print("here we are", client.submit(sum, [1, 2]).result(), flush=True)
time.sleep(300)
"""


@pytest.fixture(scope="module")
def submit() -> tuple[str, ...]:
    """What runs a Python file by spark-submit; the file and its arguments follow."""
    if why := spark.missing():
        pytest.skip(why)
    *command, main = spark.command(CARRIER, conf={"spark.pyspark.python": "/usr/bin/python3"})
    assert main == str(CARRIER)
    return tuple(command)


@pytest.mark.parametrize(("script", "code", "outcome"), [("", 0, Outcome.SUCCESS), ("1 / 0", 1, Outcome.FAILED)])
def test_spark_submit_ends_as_the_driver_does(
    carrying: Carrying, submit: tuple[str, ...], script: str, code: int, outcome: Outcome
) -> None:
    carried = carrying.start(script, through=submit)
    shown, _ = carried.process.communicate(timeout=PATIENCE)
    assert carried.process.returncode == code, carrying.errors(carried)
    assert carried.record().outcome is outcome
    assert "mayfly: driver" in shown
    carried.wait_until_gone()
    assert carrying.left_over(carried) == []


def terminate_the_jvm(carried: Carried) -> None:
    carried.process.send_signal(signal.SIGTERM)


def kill_the_jvm(carried: Carried) -> None:
    carried.process.kill()


def kill_the_carrier(carried: Carried) -> None:
    carried.one("carrier.py", by="python").kill()


def close_the_output(carried: Carried) -> None:
    """Of the JVM, which nobody reads from now on; it says something about that only when it writes."""
    assert carried.process.stdout is not None
    carried.process.stdout.close()
    carried.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("end", [terminate_the_jvm, kill_the_jvm, kill_the_carrier, close_the_output])
def test_a_job_that_is_ended_from_above_is_cancelled_and_leaves_nothing(
    carrying: Carrying, submit: tuple[str, ...], end: Callable[[Carried], Any]
) -> None:
    carried = carrying.start(WAITS, through=submit)
    carried.wait_for_line("here we are 3")
    everyone = carried.everyone()
    assert len(everyone) >= 5, "JVM, carrier, driver, host, script, worker"
    end(carried)
    record = carried.record()
    assert record.outcome is Outcome.CANCELLED
    assert record.failure is not None and record.failure.cls is FailureClass.CANCELLED
    assert "carrier gone" in record.failure.evidence[0]
    carried.process.wait(PATIENCE)
    _, alive = psutil.wait_procs(everyone, timeout=PATIENCE)
    assert alive == []
    carried.wait_until_gone()
