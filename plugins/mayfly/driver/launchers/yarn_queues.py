"""What YARN's ResourceManager says of queues, nodes and applications, as typed facts, and what follows from it. Pure.

The Capacity and the Fair scheduler describe queues in shapes of their own; another scheduler describes none, and then
nothing is known of limits. Sizes are bytes (YARN counts in MiB), times are POSIX seconds, durations seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a container, a node or a limit."""

    memory: int
    cores: int


class NodeState(StrEnum):
    """YARN's own states of a node, https://hadoop.apache.org/docs/stable/api/org/apache/hadoop/yarn/api/records/NodeState.html"""

    NEW = "NEW"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DECOMMISSIONING = "DECOMMISSIONING"
    DECOMMISSIONED = "DECOMMISSIONED"
    LOST = "LOST"
    REBOOTED = "REBOOTED"
    SHUTDOWN = "SHUTDOWN"
    UNKNOWN = "UNKNOWN"
    """A state that this Mayfly does not know."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A NodeManager. `id` is host:port, as in container reports; `http` the address of its page, host:port."""

    id: str
    host: str
    http: str
    state: NodeState
    total: Size
    used: Size
    containers: int
    labels: tuple[str, ...] = ()
    health: str = ""


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A leaf queue. `path` is its full name ("root.batch"), `name` what a user writes ("batch").

    `maximum` and `used` are shares of the whole cluster (0..1), None = not told. `largest` is the queue's own maximum
    of one container."""

    name: str
    path: str
    running: bool = True
    maximum: float | None = None
    maximum_size: Size | None = None
    used: float | None = None
    used_size: Size | None = None
    user_limit: float | None = None
    """Share of the queue that one user may have (0..1); None = all, or not told."""
    user_limit_size: Size | None = None
    am_limit: Size | None = None
    largest: Size | None = None
    labels: tuple[str, ...] = ()
    """Node labels that the queue may use; "*" = all."""
    default_label: str = ""


@dataclass(frozen=True, kw_only=True)
class Queues:
    """What the scheduler tells. `kind`: "capacity", "fair", or the scheduler's own name when it has no queues."""

    kind: str
    leaves: tuple[Queue, ...] = ()
    default: str = "default"
    step: Size | None = None
    """A container is rounded up to multiples of this; None = not told."""
    largest: Size | None = None

    def find(self, name: str) -> Queue | None:
        """By full or last name; None when there is none, or when the last name stands for several."""
        raise NotImplementedError


class Life(StrEnum):
    """Where an application is. UNKNOWN = the ResourceManager did not answer, or does not (or not yet) know it: never
    a proof of an end."""

    WAITING = "waiting"
    """Not yet running: NEW, NEW_SAVING, SUBMITTED, ACCEPTED."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        return self in (Life.SUCCEEDED, Life.FAILED, Life.KILLED)


@dataclass(frozen=True, kw_only=True)
class Application:
    """An application as YARN describes it."""

    id: str
    life: Life
    name: str = ""
    user: str = ""
    queue: str = ""
    tags: tuple[str, ...] = ()
    diagnostics: str = ""
    submitted_at: float | None = None
    launched_at: float | None = None
    """When its application master got a container."""
    ended_at: float | None = None
    am_host: str = ""
    containers: int = 0
    allocated: Size = field(default_factory=lambda: Size(memory=0, cores=0))
    pending: int = 0
    """Containers asked for and not given; only as exact as YARN tells."""
    memory_mib_seconds: int = 0
    vcore_seconds: int = 0
    preempted: int = 0
    """Containers of workers (not of the master) that were taken away."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container of an application. `id` is YARN's ("container_1700000000000_0001_01_000002"), `state` one of
    WAITING, REQUESTED, RUNNING, SUCCEEDED, FAILED, KILLED (skein's), `message` what its end was explained with."""

    id: str
    state: str
    node: str = ""
    """Host name, or host:port of the node's page."""
    started_at: float | None = None
    ended_at: float | None = None
    message: str = ""


def containers_of(reported: Any) -> tuple[Container, ...]:
    """skein's containers (`app.get_containers(services=["worker"], states=[...])`) as facts. Those without a YARN id
    were never given and are left out."""
    raise NotImplementedError


def largest_container(queues: Queues, nodes: tuple[Node, ...], *, queue: Queue | None, label: str | None) -> Size:
    """What fits: the smaller of what scheduler and queue allow and what the largest usable node has in total."""
    raise NotImplementedError


def read_queues(scheduler: Mapping[str, Any]) -> Queues:
    """The answer of `/ws/v1/cluster/scheduler`."""
    raise NotImplementedError
