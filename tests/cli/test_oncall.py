"""`mayfly ls` and `reap` over several targets, and over what is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.cli.oncall import listing, reap_targets
from mayfly.contract import FailureClass
from mayfly.project.loading import Project
from tests.backends.left import attempt, damage, living
from tests.backends.on_dataproc import done

TARGETS = """
targets:
  old: {backend: local, staging: old}
  new: {backend: local, staging: new}
"""


@pytest.fixture
def project(tmp_path: Path, state_dir: Path) -> Project:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "targets.yaml").write_text(TARGETS)
    return Project(home=tmp_path)


def test_the_newest_closed_runs_are_shown_whatever_target_they_are_of(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_id, target in (("1", "old"), ("2", "old"), ("3", "new")):
        run = living(project.frozen_target(target), project.home, run_id=run_id)
        done(lambda run=run: run.delete("test"))
    for count, shown in ((1, ["new"]), (2, ["new", "old"]), (3, ["new", "old", "old"])):
        capsys.readouterr()
        assert listing(project, None, closed=count, as_json=False) == 0
        rows = capsys.readouterr().out.splitlines()[1:]
        more = [f"({3 - count} more closed runs: -n 3 shows them)"] if count < 3 else []
        assert [row.split()[2] for row in rows[:count]] == shown
        assert rows[count:] == more


def test_a_damaged_run_is_said_by_the_exit_code_and_the_others_are_ended(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    target = project.frozen_target("old")
    damaged, left = (living(target, project.home, run_id=run_id) for run_id in ("damaged", "left"))
    attempt(damaged, 1, None)
    attempt(left, 1, FailureClass.ORCHESTRATOR_LOST)
    damage(damaged, "jobs/run_job/1/record.json")
    assert reap_targets(project, None, dry_run=False) == 3
    said = capsys.readouterr()
    assert f"{left.plan.name} (old): ended" in said.out
    assert f"{damaged.plan.name} (old): whether it leaks cannot be said" in said.err and "record.json" in said.err
    assert f"mayfly delete {damaged.plan.name}" in said.err
    assert left.dir.receipt() is not None and damaged.dir.closing() is None
    assert reap_targets(project, None, dry_run=True) == 3
    done(lambda: damaged.delete("test"))
    assert reap_targets(project, None, dry_run=True) == 0
    assert "nothing to reap" in capsys.readouterr().out
