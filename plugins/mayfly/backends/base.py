"""The seam behind which clusters are made: a few idempotent verbs.

A backend makes, starts, looks and deletes; everything else (progress, logs, results) goes through the run directory.
Every verb is synchronous, has a deadline of its own, and may be called again at any time by anybody: two actors at
once (a task and its orphan, a teardown and the reaper) must leave the same state as one.

No answer is `BackendUnavailable`: unknown, never "gone".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

from mayfly.contract import Failure, FrozenTarget, JobOrder, Plan
from mayfly.errors import InputError
from mayfly.states import ClusterState, JobState


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """What a backend sees of one cluster. `created_at` is POSIX seconds, None when not known."""

    name: str
    state: ClusterState
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: float | None = None
    detail: str = ""
    missing: int = 0
    """Machines that should be there from the start and are not."""
    gateway: str = ""
    """An address of the cluster's own web pages, where there is one; their paths are the backend's business."""


@dataclass(frozen=True, kw_only=True)
class JobView:
    """What a backend sees of one driver."""

    state: JobState
    detail: str = ""
    lost: str = ""
    """What became of the cluster below it; empty while that lives."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The largest that one cluster can be here. `cores` threads and `memory` bytes for all workers together."""

    cores: int
    memory: int


class ClusterBackend(Protocol):
    """See the module's docstring. `rundir` arguments are absolute URLs of a run directory."""

    settle_seconds: float
    """How long absence must hold when create is not known to have ended; 0 where `delete` makes a later create of that
    name impossible."""
    quiet_seconds: float
    """With a heartbeat that is younger nobody asks whether the driver lives; 0 where asking costs nothing."""

    def capacity(self) -> Capacity | None:
        """What fits, or None where machines are made to measure."""

    def create(self, plan: Plan) -> ClusterView:
        """Begin to make the cluster; returns at once. A cluster of that name with the plan's owner label is adopted;
        with another's it is `NotOurs`; one that was deleted is `Refused`."""

    def describe(self, name: str) -> ClusterView:
        """The cluster of that name; state ABSENT when the backend *knows* that there is none."""

    def submit(self, order: JobOrder, *, rundir: str) -> None:
        """Start the driver of this attempt. The id is (cluster, job, attempt): a second call changes nothing."""

    def poll(self, order: JobOrder) -> JobView:
        """Whether the driver of this attempt lives."""

    def cancel(self, order: JobOrder) -> None:
        """Ask the driver to end by its own path (SIGTERM or the like); returns at once. Not found = done."""

    def delete(self, name: str, *, owner: str) -> ClusterView:
        """Begin to delete the cluster of that name if its owner label matches, else `NotOurs`; returns what is there
        now. ABSENT = nothing is left, also when nothing ever was."""

    def explain(self, name: str) -> Failure | None:
        """Why the cluster of that name did not start, or died: asked once, before its remains are deleted. None where
        nobody knows more than its state's detail says."""

    def tidy(self, plan: Plan) -> None:
        """Remove what this plan's cluster shared with others, if it was the last one; after its receipt. May do
        nothing, and raises nothing: it is no part of the proof."""

    def find(self, labels: Mapping[str, str]) -> list[ClusterView]:
        """All clusters, whatever their state, that carry these labels. May lag behind; ABSENT ones are left out."""


BACKENDS = {
    "local": "mayfly.backends.local:LocalBackend",
    "dataproc": "mayfly.backends.dataproc:DataprocBackend",
}
"""One line a backend; the module (and its SDK) is imported when a target asks for it."""


def open_backend(target: FrozenTarget) -> ClusterBackend:
    """The backend of a target: a known name, or `package.module:Class` for one of your own. InputError otherwise."""
    module, _, name = BACKENDS.get(target.backend, target.backend).partition(":")
    if not name:
        raise InputError(
            f"target {target.name!r}: unknown backend {target.backend!r}; known: {', '.join(sorted(BACKENDS))}, "
            "or package.module:Class"
        )
    backend: ClusterBackend = getattr(import_module(module), name)(target)
    return backend
