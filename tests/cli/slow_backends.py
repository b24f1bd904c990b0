"""Local clusters that wait where a test wants to interrupt; they talk to it by files in the project's folder."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from mayfly.backends.base import Capacity, ClusterView
from mayfly.backends.local import LocalBackend
from mayfly.states import ClusterState

WAIT_SECONDS = 900.0


def project() -> Path:
    return Path(os.environ["MAYFLY_HOME"])


class PlansLate(LocalBackend):
    """What fits here is known when `go` is there."""

    def capacity(self) -> Capacity:
        (project() / "planning").touch()
        deadline = time.monotonic() + WAIT_SECONDS
        while not (project() / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        return super().capacity()


class DeletesLate(LocalBackend):
    """A cluster is being deleted until `go` is there."""

    def delete(self, name: str, *, owner: str) -> ClusterView:
        (project() / "deleting").touch()
        if (project() / "go").exists():
            return super().delete(name, owner=owner)
        return replace(self.describe(name), state=ClusterState.DELETING)
