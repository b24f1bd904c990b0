"""A project in a temporary folder, and one run of its job without Airflow, step by step."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mayfly.cli.identity import cli_identity
from mayfly.contract import Record
from mayfly.project.loading import Project
from mayfly.steps.inventory import list_runs
from mayfly.steps.lifecycle import Handle, JobRequest, Run
from mayfly.steps.planning import plan_step
from mayfly.steps.poke import Poll

LOCAL = "targets:\n  local:\n    backend: local\n    staging: .mayfly/staging\n"
TWO_WORKERS = "cluster: {workers: 2, worker: {cores: 1, memory: 600 MB}}\nretries: 0\n"
POLL_SECONDS = 0.05
BY = "benchmark"


@contextmanager
def project(job: str, script: str, *, name: str = "bench", targets: str = LOCAL) -> Iterator[Path]:
    """The home of a project with one job. State folder and run directories lie in it, too, and go with it."""
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as folder:
        home = Path(folder)
        place = home / "jobs" / name
        place.mkdir(parents=True)
        (place / "job.yaml").write_text(job)
        (place / f"{name}.py").write_text(script)
        (home / "config").mkdir()
        (home / "config" / "targets.yaml").write_text(targets)
        before = dict(os.environ)
        os.environ |= {"MAYFLY_HOME": folder, "MAYFLY_STATE_DIR": str(home / "state"), "MAYFLY_INSTALLATION": "bench"}
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
        try:
            yield home
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _delete_all(home)
            os.environ.clear()
            os.environ |= before


def _delete_all(home: Path) -> None:
    """Whatever a benchmark that broke or was interrupted has left."""
    project = Project(home)
    for target in map(project.frozen_target, project.targets()):
        for item in list_runs(target):
            if item.receipt is None:
                delete(Run.open(Handle(name=item.name, target=target)))


def planned(home: Path, *, name: str = "bench") -> Run:
    """A new run of the job, planned and nothing else."""
    project = Project(home)
    spec = project.job(name)
    while True:
        poll = plan_step(
            job=spec,
            target=project.frozen_target(spec.target),
            identity=cli_identity(dag_id=name, run_id=f"bench-{time.monotonic_ns()}"),
            home=home,
            by=BY,
        )
        if poll.done:
            return Run.open(poll.result)


def finish(run: Run, *, name: str = "bench", args: tuple[str, ...] = ()) -> Record:
    """Run its job to the end on the cluster that is there; the record. JobFailed with the end of its log."""
    request = JobRequest(key="run_job", script=f"{name}.py", args=args)
    record: Record = _wait(lambda: run.job(request, try_number=1, inline=True, by=BY))
    return record


def create(run: Run) -> None:
    _wait(lambda: run.create(BY))


def delete(run: Run) -> None:
    """With everything that it left on disk."""
    _wait(lambda: run.delete(BY))
    shutil.rmtree(run.dir.url.removeprefix("file://"), ignore_errors=True)


def _wait(poke: Callable[[], Poll]) -> Any:
    while True:
        poll = poke()
        if poll.done:
            return poll.result
        time.sleep(POLL_SECONDS)
