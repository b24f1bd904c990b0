"""Lost workers on a real Hadoop: what YARN explains is forgiven, the rest is counted, and nodes are left in time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mayfly.contract import FailureClass, Limits, Outcome, YarnPlan
from mayfly.yarn.tags import tag_of
from scripts.hadoop import Hadoop
from tests.driver.driving import CLUSTER, PATIENCE, Drive, Driving
from tests.yarn import probes
from tests.yarn.fixtures import GRACE, NODE_EXPIRY, VERSION
from tests.yarn.test_life import note

pytestmark = pytest.mark.timeout(1800)

LIMITS = Limits(start=600, job=1200, stall=0)
MEMORY = 512 << 20


def start(driving: Driving, hadoop: Hadoop, script: str, *, queue: str | None = None, **order: Any) -> Drive:
    plan = YarnPlan(fast_heartbeat=True, grace=GRACE, queue=queue)
    given = {"launcher": "yarn", "yarn": plan, "limits": LIMITS, "memory": MEMORY, **order}
    return driving.start({"job.py": script}, environment=hadoop.env, **given)


def application(hadoop: Hadoop) -> dict[str, Any]:
    (found,) = hadoop.apps(states="RUNNING", applicationTags=tag_of(CLUSTER))
    return found


# ---------------------------------------------------------------- preemption

LONG = """
import sys, time
from pathlib import Path
from dask.distributed import Client

folder = Path({folder!r})

def long(folder):
    n = len(list(folder.glob("try-*")))
    (folder / f"try-{{n}}").touch()
    while not (folder / "go").exists():
        time.sleep(0.1)
    return n

client = Client()
print("RESULT", client.submit(long, folder).result(), flush=True)
"""
PREEMPT_SOON = {
    "yarn.resourcemanager.monitor.capacity.preemption.monitoring_interval": "500",
    "yarn.resourcemanager.monitor.capacity.preemption.max_wait_before_kill": "1000",
    "yarn.resourcemanager.monitor.capacity.preemption.total_preemption_per_round": "1.0",
    "yarn.scheduler.fair.waitTimeBeforeKill": "1000",
}


LIGHT_BACKGROUND = """<allocations>
  <defaultFairSharePreemptionTimeout>2</defaultFairSharePreemptionTimeout>
  <defaultFairSharePreemptionThreshold>0.9</defaultFairSharePreemptionThreshold>
  <queueMaxAMShareDefault>0.5</queueMaxAMShareDefault>
  <queue name="batch"><weight>5</weight></queue>
  <queue name="background"><weight>0.1</weight></queue>
</allocations>
"""
"""The FairScheduler takes a container only where what is left is the application's fair share; else it takes the
application master, if that is enough."""


@pytest.mark.parametrize("scheduler", ["capacity", "fair"])
def test_one_long_task_survives_six_preemptions(scheduler: str, driving: Driving, tmp_path: Path) -> None:
    """Each time another queue takes its share back, and ends again."""
    tries = tmp_path / "tries"
    tries.mkdir()
    queues = tmp_path / "fair.xml"
    queues.write_text(LIGHT_BACKGROUND)
    settings = {**PREEMPT_SOON, "yarn.scheduler.fair.allocation.file": str(queues)}
    one = {"filesystem": "viewfs", "nodes": 1, "node_vcores": 4, "node_expiry": NODE_EXPIRY}
    with Hadoop(tmp_path / "hadoop", VERSION, scheduler, settings=settings, **one) as hadoop:
        script = LONG.format(folder=str(tries))
        # All cores: the CapacityScheduler takes a container only where memory *and* cores are above the queue's share.
        drive = start(driving, hadoop, script, queue="background", memory=4096 << 20, cores=3)
        for n in range(6):
            drive.wait(lambda n=n: (tries / f"try-{n}").exists())
            other = probes.submit(hadoop, queue="batch", memory_mb=2048)
            drive.wait(lambda n=n: drive.log().count("was lost: preempted") > n)
            if n == 0:
                drive.wait(lambda: re.search("0 of 1 workers; cluster.* by queue batch", note(drive)))
            hadoop.kill_application(other)
        drive.wait((tries / "try-6").exists)
        (tries / "go").touch()
        record = drive.record()
        assert record.outcome is Outcome.SUCCESS, drive.log()
        assert "RESULT 6" in drive.log()
        assert record.yarn is not None
        assert record.yarn.containers_preempted == 6
        assert record.yarn.containers_failed == 0
        assert record.yarn.containers_started == 7
        assert record.yarn.queue == "background"


# ---------------------------------------------------------------- deaths that nobody explains

KILLER = """
import os, signal, sys
from pathlib import Path
from dask.distributed import Client

def kill(path, how):
    with open(path, "a") as file:
        file.write("x")
    if how == "process":
        os._exit(3)
    os.killpg(os.getpgid(0), signal.SIGKILL)  # nanny and container, too

client = Client()
client.submit(kill, {path!r}, {how!r}).result()
"""


@pytest.mark.parametrize("how", ["process", "container"])
def test_a_task_that_kills_its_worker_fails_after_three(
    how: str, hadoop: Hadoop, driving: Driving, tmp_path: Path
) -> None:
    tries = tmp_path / "tries"
    drive = start(driving, hadoop, KILLER.format(path=str(tries), how=how), minimum=2)
    record = drive.record()
    assert tries.read_text() == "xxx", drive.log()
    assert record.outcome is Outcome.FAILED
    assert record.failure is not None
    assert record.failure.cls is FailureClass.WORKER_LOST, record.failure
    assert not record.failure.retryable
    assert "KilledWorker" in record.failure.summary()


GREEDY = """
from dask.distributed import Client

def eat():
    import subprocess, sys, time
    # A child's memory: Dask's nanny does not see it, YARN does.
    hungry = "import time; x = bytearray(900 << 20); time.sleep(600)"
    subprocess.run([sys.executable, "-c", hungry])

client = Client()
client.submit(eat).result()
"""


def test_a_container_over_its_memory_is_recognised(hadoop: Hadoop, driving: Driving) -> None:
    record = start(driving, hadoop, GREEDY, minimum=2).record()
    assert record.outcome is Outcome.FAILED
    assert record.failure is not None
    assert record.failure.cls is FailureClass.OUT_OF_MEMORY_WORKER, record.failure
    assert "physical memory used" in record.failure.summary()
    assert record.yarn is not None
    assert record.yarn.containers_failed >= 3


# ---------------------------------------------------------------- nodes that leave

RESULTS = """
import time
from pathlib import Path
from dask.distributed import Client, wait

def piece(i):
    return bytes(10_000_000)

client = Client()
pieces = client.map(piece, range({pieces}))
wait(pieces)
print("HELD", flush=True)
while not Path({go!r}).exists():
    time.sleep(0.1)
print("TOTAL", sum(client.gather(client.map(len, pieces))), flush=True)
"""


def test_a_node_that_is_decommissioned_is_left_with_all_results(
    hadoop: Hadoop, driving: Driving, tmp_path: Path
) -> None:
    """200 MB, half of them where they must leave: nothing is computed anew. No more than two of these workers find room
    on a node, else all could be on one, and their results had nowhere to go."""
    go = tmp_path / "go"
    script = RESULTS.format(pieces=20, go=str(go))
    drive = start(driving, hadoop, script, minimum=4, memory=2200 << 20)
    drive.wait_for_line("HELD")
    found = application(hadoop)
    workers: dict[int, list[str]] = {1: [], 2: []}
    for container in containers_of(hadoop, found["id"]):
        host = container["nodeId"].partition(":")[0]
        workers[1 if host == "localhost" else int(host.rpartition(".")[2])].append(container["containerId"])
    master = 1 if found["amHostHttpAddress"].startswith("localhost") else 2
    node = 3 - master if workers[3 - master] else master
    leaving = [name for name in workers[node] if not name.endswith("_000001")]
    assert leaving
    hadoop.decommission(node, timeout=2 * PATIENCE)
    drive.wait(lambda: not any(hadoop.containers(name) for name in leaving))
    assert hadoop.node_states()[node] == "DECOMMISSIONING", "left long before its timeout"
    drive.wait_for_line("is being decommissioned")
    go.touch()
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS, drive.log()
    assert "TOTAL 200000000" in drive.log()
    assert record.workers_lost == 0
    assert record.tasks.recomputed == 0


def containers_of(hadoop: Hadoop, app_id: str) -> list[dict[str, str]]:
    attempt = f"{app_id.replace('application', 'appattempt')}_000001"
    told: list[dict[str, str]] = hadoop.get(f"apps/{app_id}/appattempts/{attempt}/containers")["container"]
    return told
