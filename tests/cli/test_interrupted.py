"""Signals that come before a job begins, or when it has ended: while its run is planned, and while it is deleted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.conformance import wait_for

from .conftest import PATIENCE, TARGETS, Cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> Iterator[Cli]:
    """A project with the job `short`, whose targets are those of `slow_backends`."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    more = [f'  {name}: {{backend: "tests.cli.slow_backends:{name.title()}Late"}}\n' for name in ("plans", "deletes")]
    (cli.home / "config" / "targets.yaml").write_text(TARGETS + "".join(more))
    cli.add_job("short", "print('here')", "targets: [local, plans, deletes]\n")
    yield cli
    (cli.home / "go").touch()  # for whoever tidies up


def until(slow: Cli, mark: str) -> None:
    process = slow.started[-1]

    def seen() -> bool:
        assert process.poll() is None, slow.err.read_text()
        return (slow.home / mark).exists()

    wait_for(seen, what=mark)


# ---------------------------------------------------------------- planned


def test_ctrl_c_while_a_run_is_planned(slow: Cli) -> None:
    process = slow.start("run", "short", "--target", "plans")
    until(slow, "planning")
    process.send_signal(signal.SIGINT)
    (slow.home / "go").touch()
    assert process.wait(PATIENCE) == 130
    assert slow.receipt().rule.startswith("never asked for")


def test_a_second_signal_while_a_run_is_planned_says_what_may_be_left(slow: Cli) -> None:
    process = slow.start("run", "short", "--target", "plans")
    until(slow, "planning")
    for number in (signal.SIGINT, signal.SIGTERM):  # handled in the order of their numbers, wherever the first one is
        process.send_signal(number)
    assert process.wait(PATIENCE) == 143
    said = slow.err.read_text()
    assert "Traceback" not in said
    assert "before any cluster" in said and "mayfly ls" in said and "mayfly delete" in said
    assert not slow.runs()


# ---------------------------------------------------------------- deleted


def test_one_signal_while_the_cluster_is_deleted_keeps_nothing_from_its_end(slow: Cli) -> None:
    process = slow.start("run", "short", "--target", "deletes")
    until(slow, "deleting")
    process.send_signal(signal.SIGINT)
    slow.wait_for("the deletion goes on", file=slow.err)
    (slow.home / "go").touch()
    assert process.wait(PATIENCE) == 130
    assert slow.receipt().rule.startswith("deleted")
    assert (slow.home / ".mayfly/staging/runs" / slow.only_run().name / "report.html").exists()


def test_a_second_signal_while_the_cluster_is_deleted_leaves(slow: Cli) -> None:
    process = slow.start("run", "short", "--target", "deletes")
    until(slow, "deleting")
    process.terminate()
    slow.wait_for("the deletion goes on", file=slow.err)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    name = slow.only_run().name
    assert slow.err.read_text().splitlines()[-1].endswith(f"mayfly delete {name}")
    assert slow.only_run().receipt() is None
    (slow.home / "go").touch()
    assert slow("delete", name).returncode == 0
    assert slow.receipt().by.startswith("mayfly delete")
