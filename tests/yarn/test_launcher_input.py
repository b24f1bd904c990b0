"""What a machine may lack that is to start workers on YARN: each is said before anything is left behind."""

from __future__ import annotations

import os
import random
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from mayfly.contract import FailureClass, Limits, Record, YarnPlan
from scripts.hadoop import Hadoop
from scripts.hadoop.conf import is_free
from tests.driver.driving import PATIENCE, Drive, Driving
from tests.yarn.fixtures import GRACE

pytestmark = pytest.mark.timeout(1800)

LIMITS = Limits(start=600, job=600, stall=0)
SCRIPT = "from dask.distributed import Client\nClient()\n"


def drive(driving: Driving, environment: dict[str, str], script: str = SCRIPT, **order: Any) -> Drive:
    """A driver that has ended."""
    given = {"launcher": "yarn", "yarn": YarnPlan(grace=GRACE), "limits": LIMITS, "memory": 512 << 20, **order}
    drive = driving.start({"job.py": script}, environment=environment, **given)
    drive.record(timeout=LIMITS.start + LIMITS.job + PATIENCE)
    return drive


def run(driving: Driving, environment: dict[str, str], **order: Any) -> Record:
    return drive(driving, environment, **order).record()


def write_site(folder: Path, *, default_fs: str = "hdfs://127.0.0.1:1", port: int = 1, **more: str) -> dict[str, str]:
    """A client's configuration for a cluster that is not there."""
    folder.mkdir()
    yarn = {"yarn.resourcemanager.webapp.address": f"127.0.0.1:{port}", **more}
    for name, properties in (("core-site.xml", {"fs.defaultFS": default_fs}), ("yarn-site.xml", yarn)):
        lines = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in properties.items())
        (folder / name).write_text(f"<configuration>{lines}</configuration>")
    return {"HADOOP_CONF_DIR": str(folder)}


def some_ports() -> int:
    """The first of fifty that are free now; below those of the test's Hadoop and of outgoing connections, so that few
    others will want one meanwhile."""
    starts = random.SystemRandom().sample(range(10_000, 15_000, 50), 100)
    return next(first for first in starts if all(is_free("", port) for port in range(first, first + 50)))


def test_no_configuration(driving: Driving, tmp_path: Path) -> None:
    record = run(driving, {"HADOOP_CONF_DIR": str(tmp_path / "none"), "HADOOP_HOME": ""})
    assert record.failure is not None
    assert record.failure.cls is FailureClass.START_FAILED
    assert "no yarn-site.xml in" in record.failure.summary()


def test_a_file_system_that_is_not_shared(driving: Driving, tmp_path: Path) -> None:
    record = run(driving, write_site(tmp_path / "conf", default_fs="file:///"))
    assert record.failure is not None
    assert record.failure.cls is FailureClass.START_FAILED
    assert not record.failure.retryable
    assert "fs.defaultFS is file:///" in record.failure.summary()
    assert "viewfs" in record.failure.summary()


def test_the_resource_manager_is_down(driving: Driving, tmp_path: Path) -> None:
    with socket.socket() as silent:  # bound, so that nobody else takes it, and nobody listens
        silent.bind(("127.0.0.1", 0))
        record = run(driving, write_site(tmp_path / "conf", port=silent.getsockname()[1]))
    assert record.failure is not None
    assert record.failure.cls is FailureClass.START_FAILED
    assert record.failure.retryable
    assert "ResourceManager" in record.failure.summary()


def test_yarn_is_not_on_the_path(driving: Driving, hadoop: Hadoop, tmp_path: Path) -> None:
    record = run(driving, {**hadoop.env, "PATH": str(tmp_path)})
    assert record.failure is not None
    assert "`yarn` is not on PATH" in record.failure.summary()
    assert not record.failure.retryable


def test_yarn_fails(driving: Driving, hadoop: Hadoop, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "yarn"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    record = run(driving, {**hadoop.env, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"})
    assert record.failure is not None
    assert "failed with exit code 3" in record.failure.summary()


def test_java_is_not_there(driving: Driving, hadoop: Hadoop, tmp_path: Path) -> None:
    record = run(driving, {**hadoop.env, "JAVA_HOME": str(tmp_path)})
    assert record.failure is not None
    assert f"{tmp_path}/bin/java is not there" in record.failure.summary()


def test_no_way_back(driving: Driving, hadoop: Hadoop) -> None:
    """An address that leads nowhere: said with host and port, and nothing is left."""
    first = some_ports()
    plan = YarnPlan(fast_heartbeat=True, grace=900, address="192.0.2.1", watchdog_ports=(first, first + 9))
    record = run(driving, hadoop.env, yarn=plan)
    assert record.failure is not None
    assert record.failure.cls is FailureClass.NETWORK
    (port,) = re.findall(r"192\.0\.2\.1:(\d+)", record.failure.summary())
    assert first <= int(port) <= first + 9
    hadoop.wait("nothing is left", lambda: hadoop.apps(states="RUNNING,ACCEPTED") == [])


def test_a_queue_that_does_not_exist(driving: Driving, hadoop: Hadoop) -> None:
    record = run(driving, hadoop.env, yarn=YarnPlan(queue="fast"))
    assert record.failure is not None
    assert record.failure.cls is FailureClass.QUOTA
    assert "fast" in record.failure.summary()


def test_a_worker_that_fits_nowhere(driving: Driving, hadoop: Hadoop) -> None:
    record = run(driving, hadoop.env, memory=200 << 30)
    assert record.failure is not None
    assert record.failure.cls is FailureClass.QUOTA
    assert "largest container" in record.failure.summary()


def test_a_worker_without_room_for_itself(driving: Driving, hadoop: Hadoop) -> None:
    record = run(driving, hadoop.env, memory=200 << 20)
    assert record.failure is not None
    assert "too small for YARN" in record.failure.summary()


def test_ports_are_those_of_the_target(driving: Driving, hadoop: Hadoop) -> None:
    first = some_ports()
    plan = YarnPlan(
        fast_heartbeat=True,
        grace=GRACE,
        scheduler_ports=(first, first + 9),
        watchdog_ports=(first + 10, first + 19),
        worker_ports=(first + 20, first + 39),
        dashboard_ports=(first + 40, first + 49),
    )
    script = """
from dask.distributed import Client
client = Client()
print("PORTS", client.scheduler.address, *client.scheduler_info()["workers"], client.dashboard_link)
print("NANNY", *[worker["nanny"] for worker in client.scheduler_info()["workers"].values()])
"""
    log = drive(driving, hadoop.env, script, yarn=plan).log()
    lines = {line.split()[0]: line.split()[1:] for line in log.splitlines() if line.startswith(("PORTS", "NAN"))}
    scheduler, worker, dashboard = (int(part.rpartition(":")[2].partition("/")[0]) for part in lines["PORTS"])
    assert first <= scheduler < first + 10
    assert first + 20 <= worker < first + 40
    assert first + 20 <= int(lines["NANNY"][0].rpartition(":")[2]) < first + 40
    assert first + 40 <= dashboard < first + 50
