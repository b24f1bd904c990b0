"""What holds for every test: nothing of the user's Airflow or Mayfly is touched, nothing is left behind.

- Environment: AIRFLOW_HOME, the state folder and the installation's id are the session's own, in a temporary folder.
- Processes: every child inherits MAYFLY_TEST_SESSION; whatever carries it, works in the session's temporary folders or
  descends from such after the last fixture has ended is a failure, with the test that started it where that is known.
- Files: in CI, nothing new may lie in the clone or in the user's home afterwards.
- Skips: in CI a skipped test is a failure; nobody reads the reasons of green runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests.processes import family, marked, works_below

pytest_plugins = ["tests.yarn.fixtures", "tests.emulators.fixtures"]

ROOT = Path(__file__).resolve().parent.parent
SESSION = uuid.uuid4().hex
CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
TMP = Path(tempfile.mkdtemp(prefix="mayfly-tests-"))
_GONE_SECONDS = 60.0
"""How long ended processes may take to vanish on a loaded machine."""

# At import, before anything reads them: Airflow fixes its configuration when it is first imported.
for name in [name for name in os.environ if name.startswith(("AIRFLOW", "MAYFLY_", "DASK_"))]:
    del os.environ[name]
os.environ |= {
    "MAYFLY_TEST_SESSION": SESSION,
    "MAYFLY_STATE_DIR": str(TMP / "state"),
    "MAYFLY_INSTALLATION": "tests",
    "AIRFLOW_HOME": str(TMP / "airflow"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "240",
    "SCARF_ANALYTICS": "false",
    "TZ": "UTC",
}
time.tzset()

# Examples are shrunk by hypothesis, not by a clock: the machine may be busy.
settings.register_profile("mayfly", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mayfly")


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of this test alone: its local clusters are seen by nobody else."""
    folder = tmp_path / "state"
    monkeypatch.setenv("MAYFLY_STATE_DIR", str(folder))
    yield folder


_PLACES = [TMP]


@pytest.fixture(scope="session", autouse=True)
def temporary_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    _PLACES.append(tmp_path_factory.getbasetemp())


def left_processes() -> list[psutil.Process]:
    """Processes that were started by this session's tests and still run."""
    return family([marked("MAYFLY_TEST_SESSION", SESSION), *(works_below(place) for place in _PLACES)])


def files_outside() -> set[str]:
    """What tests must not make: files of the clone that git does not know, folders in the user's home, and what killed
    jobs would leave among the machine's temporary files."""
    listed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    places = [ROOT / ".mayfly", ROOT / ".airflow", Path.home() / "airflow", Path.home() / ".local/state/mayfly"]
    jobs = map(str, Path(tempfile.gettempdir()).glob("mayfly-driver-*"))
    return {*listed, *jobs} | {str(place) for place in places if place.exists()}


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_BEFORE] = files_outside() if CI else set()


_BEFORE = pytest.StashKey[set[str]]()
_PROBLEMS = pytest.StashKey[list[str]]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    problems = session.config.stash.setdefault(_PROBLEMS, [])
    deadline = time.monotonic() + _GONE_SECONDS
    while (left := left_processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        try:
            test = process.environ().get("PYTEST_CURRENT_TEST", "?")
            problems.append(f"left running: pid {process.pid} {' '.join(process.cmdline())[:200]} (started in {test})")
            process.kill()
        except psutil.Error:
            continue
    if CI:
        problems += [f"left behind: {path}" for path in sorted(files_outside() - session.config.stash[_BEFORE])]
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        for report in reporter.stats.get("skipped", []) if reporter else []:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            problems.append(f"skipped in CI: {report.nodeid}: {reason}")
    if problems and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    shutil.rmtree(TMP, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    problems = config.stash.get(_PROBLEMS, [])
    if problems:
        terminalreporter.section("after the tests", red=True, bold=True)
        for problem in problems:
            terminalreporter.line(problem)
