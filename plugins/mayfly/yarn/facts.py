"""What YARN says of nodes, applications and containers, as typed facts. Pure.

Sizes are bytes (YARN counts in MiB), times POSIX seconds (YARN: milliseconds, 0 = not yet), durations seconds. The
shapes are those of https://hadoop.apache.org/docs/stable/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html; a key
that is missing or null is "not told", since versions differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a container, a node or a limit."""

    memory: int
    cores: int

    def holds(self, other: Size) -> bool:
        return other.memory <= self.memory and other.cores <= self.cores

    def __add__(self, other: Size) -> Size:
        return Size(memory=self.memory + other.memory, cores=self.cores + other.cores)

    def __sub__(self, other: Size) -> Size:
        return Size(memory=self.memory - other.memory, cores=self.cores - other.cores)

    def times(self, other: Size) -> int:
        """How many containers of `other` have room here."""
        if self.memory <= 0 or self.cores < 0:
            return 0
        return min(self.memory // max(1, other.memory), self.cores // max(1, other.cores))


NOTHING = Size(memory=0, cores=0)


class NodeState(StrEnum):
    """YARN's own, org.apache.hadoop.yarn.api.records.NodeState."""

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
    """A NodeManager. `id` is host:port; `http` the address of its page, host:port, as in reports of containers."""

    id: str
    host: str
    http: str
    state: NodeState
    total: Size
    used: Size
    containers: int = 0
    labels: tuple[str, ...] = ()
    health: str = ""


class Life(StrEnum):
    """Where an application is. UNKNOWN = nobody answers, or the one who does has not heard of it for long: never a
    proof of an end."""

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


_LIVES = {
    **dict.fromkeys(("NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED"), Life.WAITING),
    "RUNNING": Life.RUNNING,
    "FAILED": Life.FAILED,
    "KILLED": Life.KILLED,
}
_FINAL = {"SUCCEEDED": Life.SUCCEEDED, "ENDED": Life.SUCCEEDED, "KILLED": Life.KILLED}


@dataclass(frozen=True, kw_only=True)
class Application:
    """An application as YARN describes it."""

    id: str
    life: Life
    name: str = ""
    user: str = ""
    queue: str = ""
    """Its last name ("batch"), whatever the version of Hadoop tells."""
    tags: tuple[str, ...] = ()
    diagnostics: str = ""
    submitted_at: float | None = None
    launched_at: float | None = None
    """When its application master got a container; Hadoop 3.3 and later tell."""
    ended_at: float | None = None
    am_host: str = ""
    containers: int = 0
    """That it has now, its master's among them."""
    allocated: Size = field(default=NOTHING)
    pending: int = 0
    """Containers asked for and not given."""
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
    """host:port of its node's page."""
    started_at: float | None = None
    ended_at: float | None = None
    message: str = ""

    @property
    def host(self) -> str:
        return self.node.removeprefix("http://").removeprefix("https://").partition(":")[0]


def size_of(told: Any) -> Size | None:
    """`{"memory": MiB, "vCores": n}`; None when it is not told."""
    if not isinstance(told, Mapping) or "memory" not in told:
        return None
    return Size(memory=int(told["memory"]) * MIB, cores=int(told.get("vCores", 0)))


def items(told: Any, *keys: str) -> list[Mapping[str, Any]]:
    """The list below these keys; empty when YARN leaves it out, or says null."""
    for key in keys:
        told = told.get(key) if isinstance(told, Mapping) else None
    if isinstance(told, Mapping):
        told = [told]  # a list of one, in some versions
    return [item for item in told or () if isinstance(item, Mapping)]


def read_nodes(answer: Mapping[str, Any]) -> tuple[Node, ...]:
    """The answer of `/ws/v1/cluster/nodes`."""
    return tuple(_node(told) for told in items(answer, "nodes", "node"))


def _node(told: Mapping[str, Any]) -> Node:
    used = Size(memory=_number(told, "usedMemoryMB") * MIB, cores=_number(told, "usedVirtualCores"))
    free = Size(memory=_number(told, "availMemoryMB") * MIB, cores=_number(told, "availableVirtualCores"))
    state = str(told.get("state", ""))
    return Node(
        id=str(told.get("id", "")),
        host=str(told.get("nodeHostName", "")),
        http=str(told.get("nodeHTTPAddress", "")),
        state=NodeState(state) if state in NodeState.__members__ else NodeState.UNKNOWN,
        total=size_of(told.get("totalResource")) or used + free,
        used=used,
        containers=_number(told, "numContainers"),
        labels=tuple(label for label in told.get("nodeLabels") or () if label),
        health=str(told.get("healthReport") or ""),
    )


def read_applications(answer: Mapping[str, Any]) -> tuple[Application, ...]:
    """The answer of `/ws/v1/cluster/apps`."""
    return tuple(read_application(told) for told in items(answer, "apps", "app"))


def read_application(told: Mapping[str, Any]) -> Application:
    """What is below "app" in the answer of `/ws/v1/cluster/apps/{id}`."""
    state, final = str(told.get("state", "")), str(told.get("finalStatus", ""))
    life = _FINAL.get(final, Life.FAILED) if state == "FINISHED" else _LIVES.get(state, Life.UNKNOWN)
    return Application(
        id=str(told.get("id", "")),
        life=life,
        name=str(told.get("name", "")),
        user=str(told.get("user", "")),
        queue=str(told.get("queue", "")).rpartition(".")[2],
        tags=tuple(tag for tag in str(told.get("applicationTags") or "").split(",") if tag),
        diagnostics=str(told.get("diagnostics") or "").strip(),
        submitted_at=_time(told, "startedTime"),
        launched_at=_time(told, "launchTime"),
        ended_at=_time(told, "finishedTime"),
        am_host=str(told.get("amHostHttpAddress") or "").partition(":")[0],
        containers=_number(told, "runningContainers"),
        allocated=Size(memory=_number(told, "allocatedMB") * MIB, cores=_number(told, "allocatedVCores")),
        pending=_pending(told),
        memory_mib_seconds=_number(told, "memorySeconds"),
        vcore_seconds=_number(told, "vcoreSeconds"),
        preempted=_number(told, "numNonAMContainerPreempted"),
    )


def _pending(told: Mapping[str, Any]) -> int:
    """Requests of any place ("*"): those for a node or a rack repeat them."""
    return sum(
        _number(request, "numContainers")
        for request in items(told, "resourceRequests")
        if request.get("resourceName") in ("*", None)
    )


def read_containers(answer: Any) -> tuple[Container, ...]:
    """The answer of `/ws/v1/cluster/apps/{id}/appattempts/{id}/containers`: those that live."""
    return tuple(
        Container(
            id=str(told.get("containerId", "")),
            state=str(told.get("containerState", "")),
            node=str(told.get("nodeHttpAddress") or ""),
            started_at=_time(told, "startedTime"),
            ended_at=_time(told, "finishedTime"),
        )
        for told in items(answer, "container")
    )


def containers_of(reported: Iterable[Any]) -> tuple[Container, ...]:
    """skein's containers (`app.get_containers(services=["worker"], states=[...])`) as facts. Those without a YARN id
    were never given and are left out."""
    return tuple(
        Container(
            id=container.yarn_container_id,
            state=str(container.state),
            node=container.yarn_node_http_address,
            started_at=_stamp(container.start_time),
            ended_at=_stamp(container.finish_time),
            message=(container.exit_message or "").strip(),
        )
        for container in reported
        if container.yarn_container_id
    )


def _stamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _time(told: Mapping[str, Any], key: str) -> float | None:
    """Milliseconds since 1970; 0 is YARN's "not yet"."""
    value = _number(told, key)
    return value / 1000 if value > 0 else None


def _number(told: Mapping[str, Any], key: str) -> int:
    value = told.get(key)
    return max(0, int(value)) if isinstance(value, (int, float)) else 0
