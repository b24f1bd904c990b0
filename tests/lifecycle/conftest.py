"""One real Airflow for all live tests: api-server, scheduler, dag-processor and triggerer as processes, on SQLite."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.airflow.standalone import Stack, free_port

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("live")
    shutil.copytree(HERE / "project", folder / "project")
    settings = {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent / "plugins"), str(HERE)]),
        "MAYFLY_STATE_DIR": str(folder / "state"),
        "MAYFLY_INSTALLATION": "",  # so that the first runs, all at once, make the id in the metadata
        # A task process that was killed is noticed at once, not at the next heartbeat but five.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
        "AIRFLOW__CORE__PARALLELISM": "4",
    }
    made = Stack(
        home=folder / "airflow",
        project=folder / "project",
        port=free_port(),
        plugins=HERE.parent.parent / "plugins",
        settings=settings,
    )
    made.migrate()
    made.start()
    try:
        made.wait_ready()
        yield made
    finally:
        made.stop()
