"""Why an application has fewer workers than it wants, in one line for people. Pure."""

from __future__ import annotations

import re

from mayfly.units import format_size
from mayfly.yarn.facts import Application, Life, Node, NodeState, Size
from mayfly.yarn.queues import Queue, Queues


def why(
    application: Application, queues: Queues, nodes: tuple[Node, ...], *, wanted: int, have: int, worker: Size
) -> str:
    """Such as "3 of 8 workers; queue batch at its maximum 50 %; pending 5 x 14 GB; 1 starting"."""
    parts = [f"{have} of {wanted} workers"]
    queue = queues.find(application.queue)
    if application.life is Life.WAITING:
        parts.append(_master(application))
    elif application.life is Life.RUNNING:
        pending = min(application.pending, max(0, wanted - have))
        starting = max(0, min(application.containers - 1, wanted) - have)
        if pending:
            parts += filter(None, [_limit(application, queues, queue, nodes, queues.charged(worker))])
            parts.append(f"pending {pending} x {format_size(worker.memory)}")
        if starting:
            parts.append(f"{starting} starting")
    elif application.life is Life.UNKNOWN:
        parts.append("the ResourceManager does not know the application")
    else:
        parts.append(f"the application has {'succeeded' if application.life is Life.SUCCEEDED else 'ended'}")
    return "; ".join(parts)


def _master(application: Application) -> str:
    """The application is accepted and has no container yet."""
    if re.search(r"AM resource limit exceeded|exceeds maximum AM resource allowed", application.diagnostics):
        whose = "user's" if "User's AM" in application.diagnostics else "AM"
        return f"queue {application.queue} at its {whose} limit of application masters"
    return f"queue {application.queue} has not yet given the application master's container"


def _limit(application: Application, queues: Queues, queue: Queue | None, nodes: tuple[Node, ...], worker: Size) -> str:
    """What stands in the way of one more worker; "" when nothing seems to."""
    if queue is not None:
        if _over(queue.used, worker, queue.maximum_size):
            share = "" if queue.maximum is None else f" {queue.maximum * 100:.3g} %"
            return f"queue {queue.name} at its maximum{share}"
        mine = (queue.user_used or {}).get(application.user)
        limit = (queue.user_limits or {}).get(application.user)
        if mine is not None and limit is not None and not limit.holds(mine):  # it may be passed by one container
            return f"user {application.user} at the limit of queue {queue.name} ({_both(limit)})"
    running = [node for node in nodes if node.state is NodeState.RUNNING]
    if not running:
        return "no node is running"
    if any((node.total - node.used).holds(worker) for node in running):
        return ""
    if not any(node.total.holds(worker) for node in running):
        return f"no node is large enough (the largest has {_both(max((n.total for n in running), key=_memory))})"
    used = sum(node.used.memory for node in running) / max(1, sum(node.total.memory for node in running))
    free = max((node.total - node.used for node in running), key=_memory)
    others = [q for q in queues.leaves if q is not queue and q.used.memory > 0]
    by = f", most of it by queue {max(others, key=lambda q: q.used.memory).name}" if others else ""
    return f"cluster {used * 100:.0f} % full{by}; the most free on one node is {_both(free)}"


def _over(used: Size, more: Size, limit: Size | None) -> bool:
    return limit is not None and not limit.holds(used + more)


def _memory(size: Size) -> int:
    return size.memory


def _both(size: Size) -> str:
    return f"{format_size(size.memory)} / {size.cores} cores"
