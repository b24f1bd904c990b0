"""What every launcher must give: the same world for script, scheduler and workers, also for those that join later.

A launcher is added to `LAUNCHERS` below; it is driven by the real driver, as in production.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from mayfly.contract import Limits, Outcome, YarnPlan
from mayfly.driver.launchers import base
from mayfly.driver.launchers.sizing import worker_limit
from tests.driver.driving import Drive, Driving

LAUNCHERS = ["processes", "yarn"]

pytestmark = pytest.mark.timeout(1500)  # a Hadoop is started

ODD = 'it\'s "$(id)" `x` $HOME\ntwo ✓'
MEMORY = 500_000_000
LIMIT = {"processes": MEMORY, "yarn": worker_limit(MEMORY)}
"""What Dask may use: on YARN `cluster.worker.memory` is the container's size."""

SEE = '''
"""Runs on every worker and on the scheduler."""
import os, sys
from pathlib import Path

import dask


def see(dask_worker=None):
    import helpers
    from package.inner import deep

    return {
        "helper": helpers.f(1),
        "package": deep.value(),
        "data": (Path(helpers.__file__).parent / "lookup.csv").read_text(),
        "beside": Path("lookup.csv").exists(),
        "cwd": os.getcwd(),
        "path0": os.environ["PYTHONPATH"].split(os.pathsep)[0],
        "env": os.environ["ODD"],
        "spill": dask.config.get("distributed.worker.memory.spill"),
        "own": dask.config.get("my-library.setting"),
        "nthreads": getattr(getattr(dask_worker, "state", None), "nthreads", None),
        "memory": getattr(getattr(dask_worker, "memory_manager", None), "memory_limit", None),
        "address": getattr(dask_worker, "address", None),
        "in_task": nested(),
    }


def nested():
    def inner():
        from package import inner
        import other_name.late
        return inner.deep.value() + other_name.late.VALUE
    return inner()
'''

SCRIPT = """
import json, os, socket, ssl, sys, time
from dask.distributed import Client, Security, get_worker
from see import see, nested
from helpers import f

def tell(what, value):
    print("TOLD " + json.dumps({what: value}), flush=True)

def until(condition):
    end = time.monotonic() + 300
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)

def in_a_task(i):
    sys.stdout.write(f"task {i} on {get_worker().name}\\n")  # one call: print's pieces mix with those of other threads
    time.sleep(1)
    return f(i), nested()

client = Client()
tell("first", list(client.run(see).values()))
tell("scheduler", client.run_on_scheduler(see))
tell("script", {key: value for key, value in see().items() if key not in ("nthreads", "memory", "address")})
load = client.map(time.sleep, [1 + i / 10000 for i in range(3000)])  # so that three workers are wanted all the time
until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) >= 3)
tell("later", list(client.run(see).values()))
futures = client.map(in_a_task, range(30), priority=10)
tell("results", client.gather(futures))
before = set(client.run(os.getpid).values())
try:
    client.run(os._exit, 1, workers=[min(client.run(os.getpid))], on_error="ignore")
except Exception as error:
    print("as expected:", type(error).__name__)
until(lambda: set(client.run(os.getpid, on_error="ignore").values()) - before)
tell("replaced", list(client.run(see).values()))
client.cancel(load)

def knock(context):
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, _, port = os.environ["DASK_SCHEDULER_ADDRESS"].removeprefix("tls://").rpartition(":")
    try:
        with context.wrap_socket(socket.create_connection((host, int(port)), timeout=60)) as line:
            return "let in" if line.recv(1) else "no word"
    except ssl.SSLError as error:
        return error.reason

tell("knocked", {
    "own certificate": knock(client.security.get_connection_args("client")["ssl_context"]),
    "another": knock(Security.temporary().get_connection_args("client")["ssl_context"]),
    "none": knock(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)),
})
"""

FILES = {
    "job.py": SCRIPT,
    "see.py": SEE,
    "helpers.py": "def f(i):\n    return i + 100\n",
    "package/__init__.py": "",
    "package/inner/__init__.py": "from package.inner import deep\n",
    "package/inner/deep.py": "def value():\n    return 7\n",
    "other_name/late.py": "VALUE = 1000\n",
    "lookup.csv": "a,b\n1,2\n",
}


@pytest.fixture(scope="module", params=LAUNCHERS)
def launched(request: pytest.FixtureRequest, driving: Driving) -> tuple[Drive, dict[str, Any]]:
    environment = request.getfixturevalue("hadoop_session").env if request.param == "yarn" else {}
    drive = driving.start(
        FILES,
        limits=Limits(start=300, job=900, stall=0),
        environment=environment,
        launcher=request.param,
        yarn=YarnPlan(fast_heartbeat=True),
        minimum=1,
        maximum=3,
        cores=2,
        memory=MEMORY,
        env={"ODD": ODD},
        dask={"distributed.worker.memory.spill": 0.66, "my-library": {"setting": "kept"}},
    )
    assert drive.record(timeout=1200).outcome is Outcome.SUCCESS, drive.log()
    told: dict[str, Any] = {}
    for line in drive.log().splitlines():
        if line.startswith("TOLD "):
            told |= json.loads(line.removeprefix("TOLD "))
    return drive, told


WHO = ["script", "scheduler", "first", "later", "replaced"]


def views(told: dict[str, Any], who: str) -> list[dict[str, Any]]:
    seen = told[who]
    return seen if isinstance(seen, list) else [seen]


@pytest.mark.parametrize("who", WHO)
def test_everybody_sees_the_jobs_folder_and_settings(launched: tuple[Drive, dict[str, Any]], who: str) -> None:
    drive, told = launched
    job = str(drive.folder / "code" / "job")
    for seen in views(told, who):
        assert seen["helper"] == 101
        assert seen["package"] == 7
        assert seen["in_task"] == 1007
        assert seen["data"] == "a,b\n1,2\n"
        assert seen["beside"] is True
        if who in ("script", "scheduler") or drive.order.launcher == "processes":
            assert seen["cwd"] == job
        assert seen["path0"] == seen["cwd"]  # elsewhere it is a copy
        assert seen["env"] == ODD
        assert seen["spill"] == 0.66
        assert seen["own"] == "kept"


def test_it_grew_and_replaced(launched: tuple[Drive, dict[str, Any]]) -> None:
    drive, told = launched
    assert len(told["first"]) == 1
    assert len(told["later"]) == 3
    assert drive.record().peaks.workers == 3
    assert drive.record().workers_lost == 1


@pytest.mark.parametrize("who", ["first", "later", "replaced"])
def test_workers_have_the_size_that_was_planned(launched: tuple[Drive, dict[str, Any]], who: str) -> None:
    for seen in views(launched[1], who):
        assert seen["nthreads"] == 2
        assert seen["memory"] == LIMIT[launched[0].order.launcher]


@pytest.mark.parametrize("who", ["first", "later", "replaced"])
def test_workers_speak_tls(launched: tuple[Drive, dict[str, Any]], who: str) -> None:
    for seen in views(launched[1], who):
        assert seen["address"].startswith("tls://")


def test_without_the_runs_key_nobody_gets_in(launched: tuple[Drive, dict[str, Any]]) -> None:
    knocked = launched[1]["knocked"]
    assert knocked["own certificate"] == "let in"
    assert "UNKNOWN_CA" in knocked["another"]
    assert "CERTIFICATE_REQUIRED" in knocked["none"]


def test_tasks_import_from_the_folder_on_all_workers(launched: tuple[Drive, dict[str, Any]]) -> None:
    assert launched[1]["results"] == [[i + 100, 1007] for i in range(30)]


def test_output_carries_the_name_of_its_worker(launched: tuple[Drive, dict[str, Any]]) -> None:
    lines = launched[0].log().splitlines()
    tasks = [line for line in lines if " task " in line and "] task " in line]
    assert len(tasks) >= 30
    names = {line.split("]")[0].removeprefix("[worker ") for line in tasks}
    assert len(names) >= 2
    assert all(line.startswith(f"[worker {line.split()[-1]}]") for line in tasks)


def test_the_log_is_quiet_where_dask_chats(launched: tuple[Drive, dict[str, Any]]) -> None:
    assert " - INFO - " not in launched[0].log()


def test_an_unknown_launcher_is_named() -> None:
    with pytest.raises(ValueError, match="unknown launcher 'slurm'; known: processes, yarn"):
        base.open_launcher("slurm")


def test_every_launcher_is_tested_here() -> None:
    assert set(LAUNCHERS) == set(base.LAUNCHERS)
