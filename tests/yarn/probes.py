"""Applications of one container each, submitted over REST: no client's JVM, no application master that registers."""

from __future__ import annotations

from typing import Any

from scripts.hadoop import Hadoop


def submit(
    hadoop: Hadoop, command: str = "sleep 600", *, queue: str = "default", user: str = "root", memory_mb: int = 256
) -> str:
    """Submit a command as an application; its id. Never more than one attempt."""
    app_id = hadoop.get("apps/new-application", "POST", {}, user)["application-id"]
    body: dict[str, Any] = {
        "application-id": app_id,
        "application-name": "probe",
        "application-type": "probe",
        "queue": queue,
        "max-app-attempts": 1,
        "am-container-spec": {"commands": {"command": command}},
        "resource": {"memory": memory_mb, "vCores": 1},
    }
    hadoop.get("apps", "POST", body, user)
    return app_id


def running(hadoop: Hadoop, app_id: str) -> list[int]:
    """Wait until the application's container runs; its pids."""
    hadoop.wait(f"a container of {app_id}", lambda: bool(hadoop.containers(container(hadoop, app_id))))
    return hadoop.containers(container(hadoop, app_id))


def last_attempt(hadoop: Hadoop, app_id: str) -> dict[str, Any]:
    """KeyError while there is none; how an empty list is said differs by version."""
    told = hadoop.get(f"apps/{app_id}/appattempts").get("appAttempts") or {}
    found: list[dict[str, Any]] = told.get("appAttempt") or []
    if not found:
        raise KeyError(f"{app_id} has no attempt yet")
    return found[-1]


def container(hadoop: Hadoop, app_id: str) -> str:
    return last_attempt(hadoop, app_id)["containerId"]


def node_of(hadoop: Hadoop, app_id: str) -> int:
    """Number of the node on which the application's container runs."""
    host = last_attempt(hadoop, app_id)["nodeId"].partition(":")[0]
    return 1 if host == "localhost" else int(host.rpartition(".")[2])
