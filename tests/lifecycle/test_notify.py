"""Who tells live: report, or plan, or the DAG's callback in the dag-processor; and nobody what another has told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mayfly.airflow.standalone import Stack
from tests.lifecycle.airflow_api import Run

pytestmark = pytest.mark.timeout(1500)


def lines(run: Run, path: Path) -> list[dict[str, Any]]:
    """What a notifier has written, once there is something."""
    found = run.api.until(lambda: path.exists() and path.read_text().splitlines(), f"{path.name}")
    return [json.loads(line) for line in found]


def test_the_callback_tells_what_no_task_could(stack: Stack, told: dict[str, Run]) -> None:
    """The process of each task that tells is killed."""
    run = told["told"]
    assert run.end() == "failed"
    assert run.tasks()["plan"] == "failed"
    (heard,) = lines(run, stack.project / "told.jsonl")
    assert (heard["by"], heard["text"]) == ("callback", "told failed")
    assert heard["problems"] == ["plan is failed; its log says why"]


@pytest.mark.parametrize(("job", "task"), [("cannot", "cluster.plan"), ("unlucky", "cluster.report")])
def test_the_callback_repeats_nothing(stack: Stack, told: dict[str, Run], job: str, task: str) -> None:
    run = told[job]
    assert run.end() == "failed"
    (late,) = lines(run, stack.project / f"{job}-2.jsonl")  # the callback has been there, and came by the first
    (first,) = lines(run, stack.project / f"{job}-1.jsonl")
    assert (first["by"], late["by"]) == (task, "callback")
    assert bool(late["cluster"]) is (job == "unlucky"), "the callback finds the run directory"
