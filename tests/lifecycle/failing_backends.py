"""Clusters that fail in one way each; otherwise they are real local clusters with real processes.

A target names them as `failing_backends:DiesDuringCreate`; this folder must be on PYTHONPATH.
"""

from __future__ import annotations

import os
import signal

from mayfly.backends.base import ClusterView
from mayfly.backends.local import LocalBackend
from mayfly.contract import Plan
from mayfly.errors import BackendError


class DiesDuringCreate(LocalBackend):
    """The cluster is made, and the process that asked for it is killed before it hears so."""

    def create(self, plan: Plan) -> ClusterView:
        super().create(plan)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


class RefusesCreate(LocalBackend):
    """The cloud says no, each time: a quota, a permission."""

    def create(self, plan: Plan) -> ClusterView:
        raise BackendError("quota exceeded: 0 of 8 CPUs left")


class NeverDeletes(LocalBackend):
    """Permission to delete was taken away: the cluster stays, whoever asks."""

    def delete(self, name: str, *, owner: str) -> ClusterView:
        raise BackendError("permission to delete was taken away")
