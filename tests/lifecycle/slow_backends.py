"""Clusters that fail once, or wait at a point until a test lets them go on; else real local clusters.

They talk to the test by files in `signals` below the project's data folder: <what>-<cluster name>.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from mayfly.backends.base import Capacity, ClusterView
from mayfly.backends.local import LocalBackend
from mayfly.contract import Plan
from mayfly.errors import BackendError, InputError
from mayfly.states import ClusterState

WAIT_SECONDS = 1500.0


def signals() -> Path:
    folder = Path(os.environ["MAYFLY_HOME"], "data", "signals")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def first_time(what: str) -> bool:
    """True for the first who asks, whichever process."""
    try:
        (signals() / what).open("x").close()
    except FileExistsError:
        return False
    return True


class RefusesPlan(LocalBackend):
    """Nothing fits here."""

    def capacity(self) -> Capacity:
        raise InputError("no machine of this place is large enough")


class DiesOnce(LocalBackend):
    """The process that asked for the cluster is killed before it hears of it; once."""

    def create(self, plan: Plan) -> ClusterView:
        view = super().create(plan)
        if first_time(f"died-{plan.name}"):
            os.kill(os.getpid(), signal.SIGKILL)
        return view


class CreatesLate(LocalBackend):
    """The first create call of a name hangs until `create-<name>` is there; a second one does not."""

    def create(self, plan: Plan) -> ClusterView:
        if first_time(f"first-{plan.name}"):
            beside = signals() / f".creating-{plan.name}"
            beside.write_text(f"{os.getpid()} {os.getppid()}")
            beside.rename(signals() / f"creating-{plan.name}")
            deadline = time.monotonic() + WAIT_SECONDS
            while not (signals() / f"create-{plan.name}").exists() and time.monotonic() < deadline:
                time.sleep(0.2)
            try:
                view = super().create(plan)
            except Exception as error:
                (signals() / f"refused-{plan.name}").write_text(str(error))
                raise
            (signals() / f"created-{plan.name}").touch()
            return view
        return super().create(plan)


class CollectFails(LocalBackend):
    """Whatever collect asks for is refused."""

    def __init__(self, target: object) -> None:
        if os.environ.get("AIRFLOW_CTX_TASK_ID", "").endswith("collect_metrics"):
            raise BackendError("collect was refused")
        super().__init__(target)  # type: ignore[arg-type]


class DeletesLate(LocalBackend):
    """Deleting takes until `delete-<name>` is there."""

    def delete(self, name: str, *, owner: str) -> ClusterView:
        (signals() / f"deleting-{name}").touch()
        if (signals() / f"delete-{name}").exists():
            return super().delete(name, owner=owner)
        return replace(self.describe(name), state=ClusterState.DELETING)


class DeleteFailsOnce(LocalBackend):
    def delete(self, name: str, *, owner: str) -> ClusterView:
        if first_time(f"failed-{name}"):
            raise BackendError("an internal error of the cloud, this once")
        return super().delete(name, owner=owner)


class NoPermission(LocalBackend):
    """Deleting is refused until somebody gives the permission back (`delete-<name>`)."""

    def delete(self, name: str, *, owner: str) -> ClusterView:
        if not (signals() / f"delete-{name}").exists():
            raise BackendError("permission to delete was taken away")
        return super().delete(name, owner=owner)
