"""What the ResourceManager says of its queues, as typed facts. Pure.

The Capacity and the Fair scheduler describe queues in shapes of their own; another scheduler describes none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mayfly.yarn.facts import MIB, NOTHING, Size, items, size_of

SETTINGS = (
    "yarn.acl.enable",
    "yarn.admin.acl",
    "yarn.scheduler.minimum-allocation-mb",
    "yarn.scheduler.increment-allocation-mb",
    "yarn.resource-types.memory-mb.increment-allocation",
)
"""Of the ResourceManager, which change what its answer about queues means."""
_FAIR_STEP_MIB = 1024
"""FairScheduler's own default of `yarn.resource-types.memory-mb.increment-allocation`."""


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A leaf queue. `path` is its full name ("root.batch"), `name` the last part, which users write.

    Shares are of the whole cluster (0..1), None = not told. `allowed` are the access lists ("users groups") of the
    queue and those above it for submitting, None = not told."""

    name: str
    path: str
    state: str = "RUNNING"
    share: float | None = None
    maximum: float | None = None
    maximum_size: Size | None = None
    used: Size = NOTHING
    user_limits: Mapping[str, Size] | None = None
    """What each user with applications may have, where the scheduler tells."""
    user_used: Mapping[str, Size] | None = None
    lone_user_limit: Size | None = None
    """What one user may have while no other is there."""
    largest: Size | None = None
    labels: tuple[str, ...] = ()
    """Node labels that the queue may use; "*" = all."""
    default_label: str = ""
    allowed: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Queues:
    """What the scheduler tells. `kind`: "capacity", "fair", or what another scheduler calls itself."""

    kind: str
    leaves: tuple[Queue, ...] = ()
    parents: tuple[str, ...] = ()
    """Paths of queues that hold queues."""
    creating: tuple[str, ...] = ()
    """Paths of parents below which any name becomes a queue."""
    step: int = 0
    """Bytes; a container's memory is rounded up to a multiple. 0 = not told."""
    largest: Size | None = None
    acl: bool = True
    """Whether access lists hold."""
    admins: str = ""

    def find(self, name: str) -> Queue | None:
        """By full or last name; None when there is none, or when the last name stands for several."""
        exact = [queue for queue in self.leaves if name in (queue.path, queue.path.removeprefix("root."))]
        last = [queue for queue in self.leaves if queue.name == name]
        return exact[0] if exact else last[0] if len(last) == 1 else None

    def names(self, leaves: Iterable[Queue] | None = None) -> str:
        """For people, shortest names that are unique."""
        chosen = sorted(self.leaves if leaves is None else leaves, key=lambda queue: queue.path)
        return ", ".join(q.name if self.find(q.name) is q else q.path for q in chosen) or "none"

    def charged(self, size: Size) -> Size:
        """What YARN gives to who asks for this."""
        if self.step <= 0:
            return size
        return replace(size, memory=-(-size.memory // self.step) * self.step)


# ---------------------------------------------------------------- reading


def read_queues(answer: Mapping[str, Any]) -> Queues:
    """The answer of `/ws/v1/cluster/scheduler`."""
    info = answer.get("scheduler", {}).get("schedulerInfo", {})
    kind = str(info.get("type", ""))
    if kind == "capacityScheduler":
        return _capacity(info)
    if kind == "fairScheduler":
        return _fair(info.get("rootQueue", {}))
    return Queues(kind=kind.removesuffix("Scheduler") or "unknown")


def with_settings(queues: Queues, settings: Mapping[str, str | None]) -> Queues:
    """What the ResourceManager's `SETTINGS` say of these queues; None = not told."""
    step = queues.step
    if queues.kind == "capacity":
        step = _mib(settings.get("yarn.scheduler.minimum-allocation-mb")) or step
    elif queues.kind == "fair":
        step = (
            _mib(settings.get("yarn.resource-types.memory-mb.increment-allocation"))
            or _mib(settings.get("yarn.scheduler.increment-allocation-mb"))
            or step
        )
    acl = settings.get("yarn.acl.enable") == "true"
    return replace(queues, step=step, acl=acl, admins=settings.get("yarn.admin.acl") or "")


def _mib(text: str | None) -> int:
    """ "1024", "1024Mi", "1Gi" in bytes; 0 when it is neither."""
    match = re.fullmatch(r"\s*(\d+)\s*(Mi|Gi|M|G|m|g)?\s*", text or "")
    return 0 if match is None else int(match[1]) * MIB * (1024 if (match[2] or "M")[0] in "Gg" else 1)


def _capacity(root: Mapping[str, Any]) -> Queues:
    leaves, parents, creating = [], [], []
    for told, above in _walk(root, ("queues", "queue")):
        path = str(told.get("queuePath") or ".".join([*(str(q.get("queueName")) for q in above), _name(told)]))
        if items(told, "queues", "queue") or told is root or told.get("queueType") == "parent":
            parents.append(path)
            if told.get("autoCreateChildQueueEnabled") is True or told.get("autoCreationEligibility") in (
                "legacy",
                "flexible",
            ):
                creating.append(path)
        else:
            leaves.append(_capacity_leaf(told, path, above))
    return Queues(
        kind="capacity",
        leaves=tuple(leaves),
        parents=tuple(parents),
        creating=tuple(creating),
        largest=size_of(root.get("maximumAllocation")),
    )


def _capacity_leaf(told: Mapping[str, Any], path: str, above: tuple[Mapping[str, Any], ...]) -> Queue:
    lists = [
        str(acl.get("accessControlList", ""))
        for queue in (*above, told)
        for acl in items(queue, "queueAcls", "queueAcl")
        if acl.get("accessType") in ("SUBMIT_APP", "SUBMIT_APPLICATIONS", "ADMINISTER_QUEUE")
    ]
    effective = size_of(told.get("minEffectiveCapacity"))
    maximum = size_of(told.get("maxEffectiveCapacity"))
    factor = told.get("userLimitFactor")
    lone = None
    if effective and isinstance(factor, (int, float)) and factor > 0:
        lone = Size(memory=int(effective.memory * factor), cores=int(effective.cores * factor))
        if maximum:
            lone = Size(memory=min(lone.memory, maximum.memory), cores=min(lone.cores, maximum.cores))
    users = items(told, "users", "user")
    return Queue(
        name=path.rpartition(".")[2],
        path=path,
        state=str(told.get("state", "RUNNING")),
        share=_share(told.get("absoluteCapacity")),
        maximum=_share(told.get("absoluteMaxCapacity")),
        maximum_size=maximum,
        used=size_of(told.get("resourcesUsed")) or NOTHING,
        user_limits=_by_user(users, "userResourceLimit"),
        user_used=_by_user(users, "resourcesUsed"),
        lone_user_limit=lone,
        largest=size_of(told.get("maximumAllocation")),
        labels=tuple(str(label) for label in told.get("nodeLabels") or ()),
        default_label=str(told.get("defaultNodeLabelExpression") or ""),
        allowed=tuple(lists) if lists else None,
    )


def _by_user(users: list[Mapping[str, Any]], key: str) -> dict[str, Size]:
    return {str(user.get("username")): size for user in users if (size := size_of(user.get(key)))}


def _fair(root: Mapping[str, Any]) -> Queues:
    leaves, parents = [], []
    for told, _ in _walk(root, ("childQueues", "queue")):
        path = _name(told)
        if items(told, "childQueues", "queue") or told.get("type") != "fairSchedulerLeafQueueInfo":
            parents.append(path)
            continue
        cluster, maximum = size_of(told.get("clusterResources")), size_of(told.get("maxResources"))
        leaves.append(
            Queue(
                name=path.rpartition(".")[2],
                path=path,
                share=_ratio(size_of(told.get("steadyFairResources")), cluster),
                maximum=_ratio(maximum, cluster),
                maximum_size=maximum,
                used=size_of(told.get("usedResources")) or NOTHING,
                largest=size_of(told.get("maxContainerAllocation")),
                labels=("*",),
            )
        )
    return Queues(
        kind="fair",
        leaves=tuple(leaves),
        parents=tuple(parents),
        step=_FAIR_STEP_MIB * MIB,
        largest=size_of(root.get("maxContainerAllocation")),
    )


def _walk(
    told: Mapping[str, Any], keys: tuple[str, str], above: tuple[Mapping[str, Any], ...] = ()
) -> Iterator[tuple[Mapping[str, Any], tuple[Mapping[str, Any], ...]]]:
    yield told, above
    for child in items(told, *keys):
        yield from _walk(child, keys, (*above, told))


def _name(told: Mapping[str, Any]) -> str:
    return str(told.get("queueName", ""))


def _share(percent: Any) -> float | None:
    return round(percent / 100, 6) if isinstance(percent, (int, float)) else None


def _ratio(part: Size | None, whole: Size | None) -> float | None:
    """The larger share of memory and cores: what is scarcer counts."""
    if part is None or whole is None or whole.memory <= 0:
        return None
    return min(1.0, max(part.memory / whole.memory, part.cores / whole.cores if whole.cores else 0.0))
