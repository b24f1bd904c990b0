"""The check that no test leaves a process sees those, too, that hide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from tests.conftest import left_processes

HIDES = """
import os, subprocess, sys, time
if len(sys.argv) > 1:
    os.chdir(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], cwd="/", env={})
print(child.pid, flush=True)
time.sleep(300)
"""


def test_a_process_without_a_mark_is_seen_by_its_folder_and_its_descent(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    process = subprocess.Popen([sys.executable, "-c", HIDES, str(tmp_path / "work")], stdout=subprocess.PIPE, env={})
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    try:
        (tmp_path / "work").rmdir()
        assert {process.pid, child.pid} <= {found.pid for found in left_processes()}
    finally:
        child.kill()
        process.kill()
        process.wait()
        process.stdout.close()
