"""tests/conftest.py itself: what it promises to notice, it notices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = Path(__file__).resolve().parents[1] / "conftest.py"
SKIPS = "import pytest\n\ndef test_skipped():\n    pytest.skip('no bandwidth')\n"
LEAVES = "import subprocess\nkept = []\n\ndef test_leaves():\n    kept.append(subprocess.Popen(['sleep', '300']))\n"
WRITES = "import pathlib\n\ndef test_writes():\n    (pathlib.Path(__file__).parents[1] / '.mayfly').mkdir()\n"
CLEAN = """
import os

def test_clean(state_dir):
    assert 'AIRFLOW_HOME' in os.environ
    assert 'DASK_CONFIG' not in os.environ
"""


@pytest.mark.parametrize(
    ("test", "ci", "code", "said"),
    [
        (CLEAN, True, 0, "1 passed"),
        (SKIPS, True, 1, "skipped in CI: tests/test_it.py::test_skipped: Skipped: no bandwidth"),
        (SKIPS, False, 0, "1 skipped"),
        (LEAVES, False, 1, "sleep 300 (started in tests/test_it.py::test_leaves (call))"),
        (WRITES, True, 1, "left behind: "),
    ],
)
def test_the_end_of_a_session_is_looked_at(tmp_path: Path, test: str, ci: bool, code: int, said: str) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "conftest.py").write_text(GUARD.read_text().replace("_GONE_SECONDS = 60.0", "_GONE_SECONDS = 0.5"))
    (folder / "test_it.py").write_text(test)
    path = os.pathsep.join([str(GUARD.parents[1]), os.environ.get("PYTHONPATH", "")])  # what it imports
    environment = os.environ | {
        "CI": "true" if ci else "",
        "DASK_CONFIG": "nowhere",
        "PYTHONPATH": path,
        "PYTEST_ADDOPTS": "",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(folder)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr
