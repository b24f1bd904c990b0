"""Who tells when every task that could is killed: the DAG's callback, in the dag-processor."""

from __future__ import annotations

import json

import pytest

from mayfly.airflow.standalone import Stack
from tests.lifecycle.airflow_api import Run

pytestmark = pytest.mark.timeout(600)


def test_the_callback_tells_what_no_task_could(stack: Stack, told: Run) -> None:
    assert told.end() == "failed"
    assert told.tasks()["plan"] == "failed"
    path = stack.project / "told.jsonl"
    (line,) = told.api.until(lambda: path.exists() and path.read_text().splitlines(), "a line of the notifier")
    heard = json.loads(line)
    assert (heard["by"], heard["text"]) == ("callback", "told failed")
    assert heard["problems"] == ["plan is failed; its log says why"]
