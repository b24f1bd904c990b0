"""Start real drivers on a run directory in a temporary folder. Time is shrunk by the order's `Timing`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import mayfly
from mayfly.contract import Environment, JobOrder, Lease, Limits, Phase, Record, Status, Timestamp, Timing, WorkersPlan
from mayfly.staging.rundir import AttemptDir, RunDir
from mayfly.staging.stores import FileStore

LIB = Path(mayfly.__file__).parent.parent
PATIENCE = 240.0
"""Seconds: for whatever should happen at once, on a machine with much else to do."""

FAST = Timing(status=0.3, segment=0.3, stop_grace=2.0, last_write=10.0)


CLUSTER = "test-job-0123456789"

UNTIL = """
import time
from pathlib import Path
while not Path({go!r}).exists():
    time.sleep(0.05)
"""
"""A piece of a script that waits for the file `go`, so that a test and not a clock decides when it goes on."""


def held_start(go: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """A file of the job's folder and settings of Dask with which no worker comes up before the file `go` is there."""
    return {"held.py": UNTIL.format(go=str(go))}, {"distributed.nanny.preload": ["held"]}


def make_order(**given: Any) -> JobOrder:
    """An order with defaults for what is not given."""
    defaults: dict[str, Any] = {
        "cluster": CLUSTER,
        "owner": "nonce",
        "job": "run_job",
        "attempt": 1,
        "script": "job.py",
        "workers": WorkersPlan(minimum=1, maximum=1, cores=1, memory=600_000_000),
        "limits": Limits(start=120, job=300, stall=0),
        "code": "code/none.zip",
        "lease_ttl": 600.0,
        "timing": FAST,
        "expires_at": Timestamp(time.time() + 3600),
        "at": Timestamp(time.time()),
    }
    return JobOrder(**{**defaults, **given})


@dataclass
class Drive:
    """One started driver and the run directory it works on."""

    process: subprocess.Popen[bytes]
    attempt: AttemptDir
    order: JobOrder
    folder: Path

    def record(self, *, timeout: float = PATIENCE) -> Record:
        """Wait for the driver's end; its record."""
        self.process.wait(timeout)
        record = self.attempt.record()
        assert record is not None, self.output()
        return record

    def log(self) -> str:
        """All live segments, in order."""
        parts, number = [], 0
        while (part := self.attempt.log_segment(number)) is not None:
            parts.append(part)
            number += 1
        return b"".join(parts).decode()

    def output(self) -> str:
        return (self.folder / "driver.out").read_text()

    def status(self) -> Status | None:
        return self.attempt.status()

    def wait(self, done: Callable[[], Any], *, timeout: float = PATIENCE) -> Any:
        """The first true value of `done`; fails when the driver ends before, or after `timeout` seconds."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            ended = self.process.poll() is not None  # looked at first: what it did last counts
            if value := done():
                return value
            assert not ended, f"the driver ended: {self.log()}\n{self.output()}"
            time.sleep(0.1)
        raise AssertionError(f"waited {timeout} s in vain\n{self.log()}\n{self.output()}")

    def wait_for_phase(self, phase: Phase) -> None:
        self.wait(lambda: (status := self.status()) is not None and status.phase is phase)

    def wait_for_line(self, text: str) -> None:
        self.wait(lambda: text in self.log())

    def renew(self, seq: int, ttl: float = 600.0) -> None:
        self.attempt.put("lease.json", Lease(seq=seq, writer="test", ttl_s=ttl))

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, word: str) -> psutil.Process:
        """The direct child whose command line contains `word`; AssertionError when there is none."""
        for child in psutil.Process(self.process.pid).children():
            if any(word in part for part in command_line(child)):
                return child
        raise AssertionError(f"no child {word!r}\n{self.log()}\n{self.output()}")

    def end(self) -> None:
        """End what is left, by pid."""
        if self.process.poll() is None:
            left = [*self.descendants(), psutil.Process(self.process.pid)]
            for process in left:
                try:
                    process.send_signal(signal.SIGKILL)
                except psutil.Error:
                    pass
        self.process.wait(PATIENCE)


def command_line(process: psutil.Process) -> list[str]:
    """Its arguments; none when it has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@dataclass
class Driving:
    """Makes run directories and starts drivers on them."""

    folder: Path
    drives: list[Drive]

    def start(
        self,
        files: Mapping[str, str | bytes],
        *,
        script: str = "job.py",
        minimum: int = 1,
        maximum: int | None = None,
        cores: int = 1,
        memory: int = 600_000_000,
        limits: Limits | None = None,
        environment: Mapping[str, str] | None = None,
        pack: Environment | None = None,
        before: Callable[[AttemptDir], None] | None = None,
        through: Sequence[str] = (),
        **order: Any,
    ) -> Drive:
        """Write `files` as the job's folder and start a driver for `script`. `environment` = more variables, `pack` =
        the order's packed environment, `through` = arguments that make the interpreter do something first."""
        folder = self.folder / f"drive-{len(self.drives)}"
        job, scratch, staging = folder / "code" / "job", folder / "scratch", folder / "staging"
        for path in (job, scratch, staging):
            path.mkdir(parents=True)
        for name, content in files.items():
            path = job / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        attempt = RunDir(FileStore(staging), CLUSTER).attempt("run_job", 1)
        workers = WorkersPlan(minimum=minimum, maximum=maximum or minimum, cores=cores, memory=memory)
        if limits is not None:
            order["limits"] = limits
        if pack is not None:
            order["environment"] = pack
        made = make_order(script=script, workers=workers, **order)
        attempt.create("job.json", made)
        if before:
            before(attempt)
        variables = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "DASK_", "COV_"))},
            "PYTHONPATH": str(LIB),
            "MAYFLY_CODE_DIR": str(job.parent),
            "MAYFLY_CLUSTER": made.cluster,
            "MAYFLY_OWNER": made.owner,
            "MAYFLY_PROCESSES_FILE": str(folder / "processes.json"),
            **(environment or {}),
        }
        with (folder / "driver.out").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, *through, "-m", "mayfly.driver", attempt.rundir.url, "run_job", "1"],
                cwd=scratch,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        drive = Drive(process=process, attempt=attempt, order=made, folder=folder)
        self.drives.append(drive)
        return drive

    def run(self, files: Mapping[str, str | bytes], **order: Any) -> Drive:
        """Start a driver and wait for its end."""
        drive = self.start(files, **order)
        drive.process.wait(PATIENCE)
        return drive

    def end(self) -> None:
        for drive in self.drives:
            drive.end()
