"""Nodes that are decommissioned gracefully: their workers are retired, so that YARN need not wait for its timeout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mayfly.driver.launchers.yarn_losses import container_in
from mayfly.yarn.facts import Container, Node


def workers_on(workers: Iterable[Any], containers: Iterable[Container], nodes: Iterable[Node]) -> dict[str, str]:
    """Addresses of Dask's workers (WorkerState) whose container is on one of these nodes, with the node's host."""
    leaving = {node.http: node.host for node in nodes}
    at = {c.id: c.node.removeprefix("http://").removeprefix("https://") for c in containers}
    places = {worker.address: at.get(container_in(worker.local_directory or ""), "") for worker in workers}
    return {address: leaving[place] for address, place in places.items() if place in leaving}


async def retire_leaving(scheduler: Any, containers: Iterable[Container], nodes: Iterable[Node]) -> dict[str, str]:
    """Retire the workers on these nodes: their results move to others first. Those that went, with their host; one
    whose results have nowhere to go stays, and is asked again the next time."""
    found = workers_on(scheduler.workers.values(), containers, nodes)
    if not found:
        return {}
    gone = await scheduler.retire_workers(workers=list(found), close_workers=True, remove=True)
    return {address: host for address, host in found.items() if address in gone}
