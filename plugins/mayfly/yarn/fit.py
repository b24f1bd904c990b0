"""Whether what a job asks of YARN can ever run there, and what may make it wait. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mayfly.errors import YarnRefused, YarnUnavailable
from mayfly.units import format_size
from mayfly.yarn.facts import MIB, Node, NodeState, Size
from mayfly.yarn.queues import Queue, Queues


@dataclass(frozen=True, kw_only=True)
class Request:
    """What shall run: one master and so many workers. No queue = YARN's own choice."""

    queue: str | None
    label: str | None
    user: str
    worker: Size
    master: Size
    workers: int


def check(request: Request, *, queues: Queues, nodes: tuple[Node, ...], labels: tuple[str, ...]) -> tuple[str, ...]:
    """Notes on what may make it wait; YarnRefused when it can never run, YarnUnavailable while no node is there."""
    queue = _queue(request, queues)
    if request.label:
        _check_label(request.label, queue, labels)
    usable = usable_nodes(nodes, _label_of(request.label, queue))
    if not usable:
        where = f" with the label {request.label!r}" if request.label else ""
        raise YarnUnavailable(f"no node{where} is running: YARN has {len(nodes)} nodes, {_states(nodes)}")
    for what, size, key in (
        ("a worker", request.worker, "make `cluster.worker` smaller"),
        ("the application master", request.master, "another queue or cluster is needed"),
    ):
        largest, why = _largest(queues, usable, queue)
        if not largest.holds(size):
            raise YarnRefused(
                f"{what} of {_size(size)} does not fit: largest container {_size(largest)} ({why}); {key}"
            )
    return tuple(_notes(request, queues, usable, queue))


def largest_container(queues: Queues, nodes: tuple[Node, ...], *, queue: Queue | None, label: str | None) -> Size:
    """What fits: the smaller of what scheduler and queue allow and what the largest usable node has in total."""
    return _largest(queues, usable_nodes(nodes, _label_of(label, queue)), queue)[0]


def usable_nodes(nodes: Iterable[Node], label: str) -> tuple[Node, ...]:
    """Nodes that take containers for this label; "" = the nodes without one, or all where all have one."""
    running = [node for node in nodes if node.state is NodeState.RUNNING]
    chosen = [node for node in running if (label in node.labels if label else not node.labels)]
    return tuple(chosen if chosen or label else running)


def _label_of(label: str | None, queue: Queue | None) -> str:
    return label or (queue.default_label if queue else "")


def _queue(request: Request, queues: Queues) -> Queue | None:
    """The queue as the scheduler knows it; None when there is none to look at."""
    name = request.queue or "default"
    queue = queues.find(name)
    if not queues.leaves or (queue is None and name == "default"):
        return None  # what YARN makes of "default" is its own choice (queue mappings, placement rules)
    if queue is None:
        parent = name if name.startswith("root") else f"root.{name}"
        if parent.rpartition(".")[0] in queues.creating:
            return None
        several = [leaf for leaf in queues.leaves if leaf.name == name]
        if several:
            raise YarnRefused(f"queue {name!r} stands for several: write one of {queues.names(several)}")
        holder = any(path == parent or path.rpartition(".")[2] == name for path in queues.parents)
        why = "holds other queues and takes no applications" if holder else "does not exist"
        raise YarnRefused(f"queue {name!r} {why}; queues: {queues.names()}")
    if queue.state != "RUNNING":
        running = [leaf for leaf in queues.leaves if leaf.state == "RUNNING"]
        raise YarnRefused(f"queue {name!r} is {queue.state.lower()}; queues: {queues.names(running)}")
    if may_submit(request.user, queue, queues) is False:
        open_ones = [leaf for leaf in queues.leaves if may_submit(request.user, leaf, queues) is not False]
        raise YarnRefused(
            f"user {request.user!r} is not allowed to submit to queue {name!r}; queues that are open to this user: "
            f"{queues.names(open_ones)}"
        )
    return queue


def may_submit(user: str, queue: Queue, queues: Queues) -> bool | None:
    """By the access lists; None = they name groups, and whose groups these are only YARN knows, or are not told."""
    if not queues.acl or queue.allowed is None:
        return True
    unknown = False
    for text in (*queue.allowed, queues.admins):
        users, _, groups = text.partition(" ")
        if text.strip() == "*" or user in [name.strip() for name in users.split(",")]:
            return True
        unknown = unknown or bool(groups.strip())
    return None if unknown else False


def _check_label(label: str, queue: Queue | None, labels: tuple[str, ...]) -> None:
    if label not in labels:
        known = f"labels: {', '.join(sorted(labels))}" if labels else "this cluster has no node labels"
        raise YarnRefused(f"node label {label!r} does not exist; {known}")
    if queue is not None and "*" not in queue.labels and label not in queue.labels:
        allowed = ", ".join(queue.labels) or "none"
        raise YarnRefused(f"queue {queue.name!r} may not use nodes with the label {label!r}; it may use: {allowed}")


def _largest(queues: Queues, usable: tuple[Node, ...], queue: Queue | None) -> tuple[Size, str]:
    """The largest container, and what limits it."""
    limits = [(queues.largest, "the scheduler's maximum"), (queue.largest if queue else None, "the queue's maximum")]
    if usable:
        node = Size(memory=max(n.total.memory for n in usable), cores=max(n.total.cores for n in usable))
        limits.append((node, "the largest node"))
    known = [(size, why) for size, why in limits if size is not None and size.memory > 0]
    if not known:
        return Size(memory=1 << 62, cores=1 << 30), "not told"
    least = Size(memory=min(s.memory for s, _ in known), cores=min(s.cores for s, _ in known))
    # The last one named: scheduler and queue often just repeat what the nodes have.
    why = [why for size, why in known if size.memory == least.memory][-1]
    return least, why


def _notes(request: Request, queues: Queues, usable: tuple[Node, ...], queue: Queue | None) -> Iterator[str]:
    worker, master = queues.charged(request.worker), queues.charged(request.master)
    room = sum(node.total.times(worker) for node in usable)
    if room < request.workers:
        yield f"the {len(usable)} nodes that run now hold {room} of the {request.workers} workers that must be there"
    if queue is None:
        return
    maximum, share = queue.maximum_size, queue.lone_user_limit
    if maximum and (fits := (maximum - master).times(worker)) < min(room, request.workers):
        yield (
            f"queue {queue.name} at its maximum{_percent(queue.maximum)} holds {fits} of the {request.workers} workers "
            "that must be there"
        )
    if share and share.holds(master):
        fits = (share - master).times(worker) + 1  # a user's share may be passed by one container, a maximum not
        if fits < min(room, request.workers):
            yield (
                f"one user's share of queue {queue.name} holds {fits} of the {request.workers} workers that must be "
                "there"
            )


def _percent(share: float | None) -> str:
    return "" if share is None else f" {share * 100:.3g} %"


def _states(nodes: tuple[Node, ...]) -> str:
    counts = {state: sum(node.state is state for node in nodes) for state in NodeState}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none known"


def _size(size: Size) -> str:
    return f"{format_size(size.memory)} ({size.memory // MIB} MiB) and {size.cores} cores"
