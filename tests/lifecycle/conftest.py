"""One real Airflow for all live tests: api-server, scheduler, dag-processor and triggerer as processes, on SQLite.

With TEST_INSTALL=wheel Mayfly is not in the plugins folder but installed from its wheel, and so jobs wait deferred.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.airflow.standalone import Stack
from scripts.hadoop import Hadoop, missing
from tests.lifecycle.airflow_api import WAIT_SECONDS, Api, Run
from tests.processes import end, free_port, of_cluster
from tests.verdict.cloud import Cloud
from tests.verdict.cloud import cloud as make_cloud
from tests.verdict.cloud import missing as lacks_cloud

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def installed(folder: Path) -> Path:
    """Mayfly as pip installs it from its wheel."""
    subprocess.run(["bash", "scripts/wheel.sh", sys.prefix, str(folder / "dist")], cwd=ROOT, check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True)
    return site


def hadoop_client(folder: Path) -> dict[str, str]:
    """Whoever has these variables is a client of the Hadoop that a test may start in `folder`; none runs yet."""
    if missing():
        return {}
    found = Hadoop(folder).env
    return {**found, "PATH": os.pathsep.join([str(Path(sys.executable).parent), found["PATH"]])}


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud | None]:
    """For targets on Dataproc; None where this machine lacks something for it."""
    if lacks_cloud():
        yield None
        return
    with make_cloud(tmp_path_factory.mktemp("cloud")) as made:
        yield made


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, cloud: Cloud | None) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("live")
    shutil.copytree(HERE / "project", folder / "project")
    package = plugins = ROOT / "plugins"
    if os.environ.get("TEST_INSTALL") == "wheel":
        package, plugins = installed(folder), folder / "no-plugins"
        plugins.mkdir()
    settings = {
        "PYTHONPATH": os.pathsep.join([str(package), str(HERE)]),
        "MAYFLY_STATE_DIR": str(folder / "state"),
        "MAYFLY_INSTALLATION": "",  # so that the first runs, all at once, make the id in the metadata
        # A task process that was killed is noticed at once, not at the next heartbeat but five.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
        # A killed supervisor is noticed after 45 s, not after five minutes.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__CORE__PARALLELISM": "4",
        # On a slow machine a DAG file takes its time, too.
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "240",
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "300",
        # Another Airflow of this machine may have the usual ones.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        **hadoop_client(folder / "hadoop"),
        **(cloud.env if cloud else {}),
    }
    made = Stack(
        home=folder / "airflow",
        project=folder / "project",
        port=free_port(),
        plugins=plugins,
        settings=settings,
    )
    made.migrate()
    made.start()
    try:
        made.wait_ready(WAIT_SECONDS)
        yield made
    finally:
        made.stop()
        # Whatever a failed or left out test did not end; nothing new starts any more.
        for run in (made.project / ".mayfly" / "staging" / "runs").glob("*"):
            for process in of_cluster(run.name):
                end(process)


@pytest.fixture(scope="session")
def told(stack: Stack) -> dict[str, Run]:
    """Runs that fail and are told of. Nobody needs to wait for them: asked for early, they go on beside others."""
    api = Api(stack)
    return {job: api.trigger(job) for job in ("told", "cannot", "unlucky")}
