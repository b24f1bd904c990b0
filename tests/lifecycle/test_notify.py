"""Who tells when every task that could is killed: the DAG's callback, in the dag-processor."""

from __future__ import annotations

import json

import pytest

from mayfly.airflow.standalone import Stack
from tests.lifecycle.airflow_api import Api

pytestmark = pytest.mark.timeout(600)


def test_the_callback_tells_what_no_task_could(stack: Stack) -> None:
    api = Api(stack)
    run = api.trigger("told")
    assert run.end() == "failed"
    assert run.tasks()["plan"] == "failed"
    path = stack.project / "told.jsonl"
    (line,) = api.until(lambda: path.exists() and path.read_text().splitlines(), "a line of the notifier")
    told = json.loads(line)
    assert (told["by"], told["text"]) == ("callback", "told failed")
    assert told["problems"] == ["plan is failed; its log says why"]
