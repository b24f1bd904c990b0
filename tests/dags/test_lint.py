"""The DAG lint: each bad DAG is refused with its message, ours and whatever only looks risky pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mayfly.cli.main import main
from mayfly.daglint.checking import Checked, check_folder
from mayfly.errors import InputError
from mayfly.project.checks import Finding
from mayfly.testing import DagWarning, check_dags

ROOT = Path(__file__).resolve().parents[2]
BAD = Path(__file__).parent / "bad"
BY_HAND = "let `with dask_cluster(...)` make and wire all of a cluster's tasks"

REFUSED = {
    # what undoes the wiring
    "no_teardowns.py": [
        "22: error: no_teardowns.plan: the cluster 'by_hand' has no tasks of the kind collect_metrics",
        "the cluster 'by_hand' has no tasks of the kind delete_cluster, exactly one is needed: nothing would delete it",
        "the cluster 'by_hand' has no tasks of the kind report, exactly one is needed: nobody would notice",
    ],
    "ordinary_tasks.py": [
        part
        for task in ("collect_metrics", "delete_cluster", "report")
        for part in (
            f"ordinary_tasks.{task}: must be a teardown and is none",
            f"ordinary_tasks.{task}: is no teardown of plan",
            f"ordinary_tasks.{task}: is no teardown of create_cluster",
        )
    ],
    "teardowns_of_create_only.py": [
        "collect_metrics: is no teardown of plan",
        f"delete_cluster: is no teardown of plan: when create fails half-way, nothing is deleted; {BY_HAND}",
        "report: is no teardown of plan",
    ],
    "delete_does_not_wait.py": [
        "delete_does_not_wait.delete_cluster: does not wait for run_job",
        "delete_does_not_wait.report: does not wait for delete_cluster",
    ],
    "delete_as_ordinary_task.py": ["compose.delete_cluster: must be a teardown and is none: it would be skipped when"],
    "delete_with_another_rule.py": ["compose.delete_cluster: its trigger rule is all_success, and all_done_setup_succ"],
    "delete_waits_for_yesterday.py": ["compose.delete_cluster: depends_on_past or wait_for_downstream is set"],
    # what hides the verdict
    "report_may_fail.py": ["compose.report: on_failure_fail_dagrun is off: a run whose cluster is not deleted would"],
    "after_report.py": ["16: error: after_report.all_is_well: comes after compose.report, which must be the last"],
    "branch_over_delete.py": ["choose: is a branch, and would skip compose.delete_cluster when it chooses another way"],
    # what Airflow does to a DAG with a cluster
    "dagrun_timeout.py": ["11: error: ", "dagrun_timeout"],
    "dagrun_timeout_later.py": [
        (
            "14: error: dagrun_timeout_later: dagrun_timeout (2h) around the cluster 'compose': when it passes, "
            "Airflow ends the run without its teardowns, and the cluster lives on; remove it, and limit the job with"
        )
    ],
    "rule_after_create.py": [
        (
            "error: Airflow cannot read this file, and shows none of its DAGs: ValueError: Setup tasks must be "
            "followed with trigger rule ALL_SUCCESS.; a task directly after plan or create_cluster has another"
        ),
        (
            "16: error: rule_after_create.say_hello: its trigger rule is all_done, and it comes directly "
            "after compose.create_cluster, where Airflow allows all_success alone; let it come after a job or after"
        ),
    ],
    # what happens while the file is read
    "heavy_import.py": ["5: error: imports pandas while the file is read"],
    "heavy_through_helper.py": ["6: error: imports numpy (through lint_helper.py) while the file is read"],
    "connects.py": ["13: error: connects to 127.0.0.1:9 while the file is read"],
    "starts_program.py": ["11: error: starts true while the file is read"],
    "runs_shell.py": ["11: error: starts true while the file is read"],
    "writes_file.py": ["14: error: writes ", "15: error: removes "],
    "sleeps.py": ["11: error: sleeps 0.001 s while the file is read"],
    "asks_variable.py": ["11: error: asks Airflow for the variable 'numbers' while the file is read"],
    "asks_connection.py": ["11: error: asks Airflow for the connection 'store' while the file is read"],
    # files that cannot be read
    "import_fails.py": ["5: error: Airflow cannot read this file, and shows none of its DAGs: ModuleNotFoundError"],
    "exits.py": ["7: error: Airflow cannot read this file, and shows none of its DAGs: SystemExit: no configuration"],
    "ends_process.py": ["shows none of its DAGs: reading it ended the whole process (exit code 3)"],
}
WARNED = {
    "execution_timeout_on_job.py": [
        (
            "13: warning: execution_timeout_on_job.compose.prepare: execution_timeout (1h 30m) does not limit it, "
            "since the time for which a task waits does not count; limit the job with `timeout` in job.yaml or"
        )
    ],
    "execution_timeout_by_default.py": [
        "in default_args does not reach the cluster's tasks, and this DAG has no other"
    ],
    "ds_with_assets.py": [
        "compose.prepare: its templates use dag_run.logical_date, ds, which a run started by an asse"
    ],
    "ds_with_assets_or_time.py": ["ds_with_assets_or_time.say: its templates use ds, which a run started by an asset"],
    "of_others.py": ["7: warning: imports pandas while the file is read"],
}


@pytest.fixture(scope="module")
def bad() -> Checked:
    return check_folder(BAD)


def of_file(checked: Checked, name: str) -> list[Finding]:
    return [finding for finding in checked.findings if Path(finding.file).name == name]


def test_every_bad_dag_has_its_message(bad: Checked) -> None:
    files = {path.name for path in BAD.glob("*.py")} - {"lint_helper.py"}
    assert files == {*REFUSED, *WARNED} == {Path(finding.file).name for finding in bad.findings}
    assert bad.files == len(files)


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_dag_is_refused(bad: Checked, name: str) -> None:
    lines = [str(finding) for finding in of_file(bad, name) if finding.severity == "error"]
    wanted = REFUSED[name]
    if name == "dagrun_timeout.py":  # dask_cluster() itself refuses, and Airflow reports that
        assert lines and "dagrun_timeout" in lines[0] and "without its teardowns" in lines[0]
        return
    assert len(lines) == len(wanted), lines
    assert [part in line for line, part in zip(lines, wanted, strict=True)] == [True] * len(wanted), lines
    assert len(of_file(bad, name)) == len(lines)


@pytest.mark.parametrize("name", WARNED)
def test_a_doubtful_dag_is_warned_about(bad: Checked, name: str) -> None:
    (finding,) = of_file(bad, name)
    assert finding.severity == "warning"
    assert WARNED[name][0] in str(finding)


def test_every_finding_names_a_line_of_its_file(bad: Checked) -> None:
    without = {Path(finding.file).name for finding in bad.findings if finding.line is None}
    assert without == {"ends_process.py", "rule_after_create.py"}
    for finding in bad.findings:
        assert (finding.line or 1) <= len(Path(finding.file).read_text().splitlines())


def test_what_only_looks_risky_passes() -> None:
    checked = check_folder(BAD.parent / "good")
    assert not checked.findings
    assert (checked.dags, checked.clusters) == (4, 5)


def test_the_projects_own_dags_pass(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["validate", "flights", "--dags"]) == 0
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.endswith("clusters: all good")
    assert last.startswith(f"{len(list((ROOT / 'dags').glob('*.py')))} DAG files, ")


def test_the_command_refuses_one_bad_file(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["validate", "flights", "--dags", "tests/dags/bad/report_may_fail.py"]) == 2
    assert "tests/dags/bad/report_may_fail.py:10: error: report_may_fail.compose.report: " in capfd.readouterr().out


def test_users_test_their_dags_with_one_line(tmp_path: Path) -> None:
    """A project of its own, with the DAG of docs/dags.md: one test is the import alone, one names a folder."""
    home = tmp_path / "a project"
    for folder in ("jobs/trips", "config", "dags", "tests"):
        (home / folder).mkdir(parents=True)
    (home / "jobs/trips/job.yaml").write_text("{}")
    (home / "jobs/trips/trips.py").write_text("pass\n")
    (home / "dags/jobs.py").write_text((ROOT / "dags/jobs.py").read_text())
    (home / "dags/nightly.py").write_text((ROOT / "docs/dags.md").read_text().split("```python\n")[1].split("```")[0])
    (home / "bad").mkdir()
    (home / "bad/late.py").write_text((BAD / "dagrun_timeout_later.py").read_text().replace('"compose"', '"trips"'))
    (home / "tests/test_ours.py").write_text("from mayfly.testing import test_dags  # noqa: F401\n")
    (home / "tests/test_theirs.py").write_text(
        "from mayfly.testing import check_dags\n\ndef test_theirs():\n    check_dags('bad')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(home), "tests"],
        cwd=home, capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "plugins"), "PYTEST_ADDOPTS": ""},
    )  # fmt: skip
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "AssertionError: these DAG files are refused:" in done.stdout
    assert "bad/late.py:14: error: dagrun_timeout_later: dagrun_timeout (2h) around the cluster 'trips'" in done.stdout


def test_warnings_of_users_tests_are_warnings() -> None:
    with pytest.warns(DagWarning, match="does not limit it"):
        check_dags(BAD / "execution_timeout_on_job.py")


def test_nothing_to_check_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no DAG folder"):
        check_folder(tmp_path / "dags")
    (tmp_path / "helper.py").write_text("x = 1\n")
    with pytest.raises(InputError, match=r"no DAG file in .*: Airflow takes Python files that name both"):
        check_folder(tmp_path)
