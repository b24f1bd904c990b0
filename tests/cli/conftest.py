"""A project and a state folder of each test's own, and the real command in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mayfly.contract import Receipt, Record
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import FileStore

JOB = """
cluster:
  workers: 1
  worker: {cores: 1, memory: 600 MB}
timeout: 20m
start_timeout: 5m
retries: 0
"""
TARGETS = """
targets:
  local:
    backend: local
    timing: {poll_inline: 200ms, status: 500ms, segment: 500ms, stop_grace: 4s, lease_ttl_inline: 10m}
"""
WAITS = """
import sys, time
from pathlib import Path
print("working", flush=True)
until = time.monotonic() + 900
while time.monotonic() < until and not (len(sys.argv) > 1 and Path(sys.argv[1]).exists()):
    time.sleep(0.1)
print("done", flush=True)
"""
"""Its argument, if any: the file for which it waits."""
PATIENCE = 240.0
"""Seconds; only turns a hang into a failure."""


@dataclass
class Cli:
    """`mayfly` in one project; `home` is the project, `state` the state folder."""

    home: Path
    state: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def add_job(self, name: str, script: str, extra: str = "") -> None:
        folder = self.home / "jobs" / name
        folder.mkdir(parents=True)
        (folder / "job.yaml").write_text(JOB + extra)
        (folder / f"{name}.py").write_text(script)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"MAYFLY_HOME": str(self.home), "MAYFLY_STATE_DIR": str(self.state), "COLUMNS": "120"}

    def __call__(
        self, *arguments: str, timeout: float = PATIENCE, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`more` = further variables of its environment."""
        command = [sys.executable, "-m", "mayfly", *arguments]
        environment = {**self.environment, **(more or {})}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout, check=False, cwd=self.home
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Left running; its output goes to `out` and `err`, which are read while it grows."""
        with self.out.open("w") as out, self.err.open("w") as err:
            command = [sys.executable, "-m", "mayfly", *arguments]
            process = subprocess.Popen(command, env=self.environment, stdout=out, stderr=err, text=True, cwd=self.home)
        self.started.append(process)
        return process

    @property
    def out(self) -> Path:
        return self.home / "out.txt"

    @property
    def err(self) -> Path:
        return self.home / "err.txt"

    def wait_for(self, text: str, *, file: Path | None = None, seconds: float = PATIENCE) -> None:
        """Until `text` was printed by what `start` started."""
        deadline = time.monotonic() + seconds
        while True:
            over = time.monotonic() > deadline or self.started[-1].poll() is not None
            if text in (file or self.out).read_text(errors="replace"):  # it may end within a character
                return
            assert not over, f"{text!r} was never printed:\n{self.out.read_text()}\n{self.err.read_text()}"
            time.sleep(0.1)

    def runs(self) -> list[RunDir]:
        store = FileStore(self.home / ".mayfly" / "staging")
        return [RunDir(store, name) for name in sorted({path.split("/")[1] for path in store.list("runs/")})]

    def only_run(self) -> RunDir:
        (run,) = self.runs()
        return run

    def receipt(self) -> Receipt:
        receipt = self.only_run().receipt()
        assert receipt is not None
        return receipt

    def record(self) -> Record:
        record = self.only_run().attempt("run_job", 1).record()
        assert record is not None
        return record


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    home = tmp_path / "my project ü"  # paths are data, never parsed
    (home / "config").mkdir(parents=True)
    (home / "jobs").mkdir()
    (home / "config" / "targets.yaml").write_text(TARGETS)
    made = Cli(home=home, state=tmp_path / "state")
    yield made
    for process in made.started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
    left = [run.name for run in made.runs() if run.receipt() is None]
    if left:
        made("delete", *left)
