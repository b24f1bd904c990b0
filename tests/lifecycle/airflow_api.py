"""Airflow's REST API as a user's script would call it, and what a test wants to know of a run."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from mayfly.airflow.standalone import USER, Stack

WAIT_SECONDS = 600.0
"""For anything; generous, since it only turns a hang into a failure."""


class Api:
    def __init__(self, stack: Stack) -> None:
        self.stack, self.token = stack, ""
        answer = self.call("POST", "/auth/token", {"username": USER, "password": stack.secrets["password"]})
        self.token = answer["access_token"]

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The decoded answer; HTTPError as it comes, but for 500, which is tried again: on SQLite the api-server gives
        up a request that could not write in time, and what it had begun is rolled back. So is a GET without an answer,
        of a server that is slow or is being started again."""
        for pause in (1.0, 2.0, 4.0, 8.0):
            try:
                return self._call(method, path, body)
            except urllib.error.HTTPError as error:
                if error.code != 500:
                    raise
            except (OSError, http.client.HTTPException):
                if method != "GET":
                    raise
            time.sleep(pause)
        return self._call(method, path, body)

    def _call(self, method: str, path: str, body: object) -> Any:
        request = urllib.request.Request(
            self.stack.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def trigger(self, dag_id: str, **conf: object) -> Run:
        self.until(lambda: self._known(dag_id), f"DAG {dag_id}")
        run = self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return Run(self, dag_id, run["dag_run_id"])

    def until(self, condition: Callable[[], Any], what: str | Callable[[], str]) -> Any:
        """What the condition answers, once that is true."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            self.stack.revive()
            if found := condition():
                return found
            time.sleep(1.0)
        raise AssertionError(f"{what if isinstance(what, str) else what()}: not within {WAIT_SECONDS:.0f} s")

    def _known(self, dag_id: str) -> bool:
        try:
            return not self.call("GET", f"/api/v2/dags/{dag_id}")["is_paused"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise


TEARDOWNS = ("collect_metrics", "delete_cluster", "report")
ACTIVE = ("scheduled", "queued", "running", "up_for_retry", "up_for_reschedule", "restarting", "deferred")


class Run:
    """One DAG run."""

    def __init__(self, api: Api, dag_id: str, run_id: str) -> None:
        self.api, self.dag_id, self.run_id = api, dag_id, run_id
        self.marked = ""
        self.path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"

    def state(self) -> str:
        return str(self.api.call("GET", self.path)["state"])

    def tasks(self) -> dict[str, str | None]:
        found = self.api.call("GET", f"{self.path}/taskInstances")["task_instances"]
        return {_short(task): task["state"] for task in found}

    def tries(self, task: str) -> int:
        return int(self.api.call("GET", f"{self.path}/taskInstances/cluster.{task}")["try_number"])

    def mark(self, state: str) -> None:
        self.api.call("PATCH", self.path, {"state": state})
        self.marked = state

    def clear(self) -> None:
        self.marked = ""
        self.api.call("POST", f"{self.path}/clear", {"dry_run": False, "only_failed": False})

    def clear_tasks(self, *tasks: str | tuple[str, int], downstream: bool = False) -> list[str]:
        """Clear tasks, by full name or (full name, map index); what Airflow really cleared."""
        body = {
            "dry_run": False,
            "only_failed": False,
            "dag_run_id": self.run_id,
            "task_ids": list(tasks),
            "include_downstream": downstream,
            "reset_dag_runs": True,
        }
        self.marked = ""
        answer = self.api.call("POST", f"/api/v2/dags/{self.dag_id}/clearTaskInstances", body)
        return sorted(_short(task) for task in answer["task_instances"])

    def end(self) -> str:
        """The final state. A run that was marked has its state at once; its teardowns still run."""

        def look() -> str:
            state, tasks = self.look()
            rests = not any(task in (None, *ACTIVE) for task in tasks.values())
            return state if state in ("success", "failed") and rests else ""

        return str(self.api.until(look, lambda: f"the end of {self.dag_id} {self.run_id} ({self.look()})"))

    def look(self) -> tuple[str, dict[str, str | None]]:
        """State of the run, states of its tasks; marks again what goes on although the run was marked, as a user would
        who sees that nothing came of it.

        SQLite locks no rows: a task that was just being started, or was just writing its own state, may overwrite the
        mark. On PostgreSQL Airflow's `FOR UPDATE` keeps it."""
        state, tasks = self.state(), self.tasks()
        ours = (task for name, task in tasks.items() if name.partition("[")[0] not in TEARDOWNS)
        if self.marked and any(task in ACTIVE for task in ours):
            print(f"    {self.dag_id} {self.run_id} goes on, marked again: {tasks}", flush=True)
            self.mark(self.marked)
        return state, tasks

    def log(self, task: str, attempt: int = 1) -> str:
        answer = self.api.call("GET", f"{self.path}/taskInstances/cluster.{task}/logs/{attempt}?full_content=true")
        lines = (f"{line.get('event', '')} {line.get('error_detail', '')}" for line in answer["content"])
        return "\n".join(lines)


def _short(task: dict[str, Any]) -> str:
    """`plan` for `cluster.plan`, `plan[1]` for a mapped one."""
    name = task["task_id"].rsplit(".", 1)[-1]
    return name if task["map_index"] < 0 else f"{name}[{task['map_index']}]"
