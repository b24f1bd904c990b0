"""`kill_points`: the harness for any backend, by its name alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.killpoints.alone import Told


@pytest.fixture
def kill_points(tmp_path: Path) -> Callable[..., Told]:
    """`kill_points("package.module:Backend", most=12)`: fails when a death or an orphan leaves what must not be.

    `most` cases are tried, evenly over the calls to the backend. The name may also be that of a context manager that is
    given a folder and yields a `KillPoints`: see `tests/killpoints/cloud.py`.
    """

    def try_out(name: str, *, most: int) -> Told:
        command = [sys.executable, "-m", "tests.killpoints.alone", name, str(tmp_path), str(most)]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
        )
        told = Told(**json.loads(done.stdout))
        print(f"\n{name}: {told.cases} of {told.of} cases in {told.seconds} s, {len(told.points)} points")
        assert told.violations == []
        assert told.cases >= min(most, told.of)
        assert len(told.missed) <= told.cases // 3, told.missed
        return told

    return try_out
