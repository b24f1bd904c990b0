"""Nodes that are about to go: decommissioned gracefully by YARN, or taken away by their cloud, which says so some 30 s
before. Their workers are retired, so that tasks and results are elsewhere by then, and nothing counts as lost."""

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


async def retire_named(scheduler: Any, name: str) -> bool:
    """Retire the worker of this name, whose node is to be taken away; False when it is not there, or when its results
    have nowhere to go."""
    found = [worker.address for worker in scheduler.workers.values() if str(worker.name) == name]
    return bool(found) and bool(await scheduler.retire_workers(workers=found, close_workers=True, remove=True))


async def retire_leaving(scheduler: Any, containers: Iterable[Container], nodes: Iterable[Node]) -> dict[str, str]:
    """Retire the workers on these nodes: their results move to others first. Those that went, with their host; one
    whose results have nowhere to go stays, and is asked again the next time."""
    found = workers_on(scheduler.workers.values(), containers, nodes)
    if not found:
        return {}
    gone = await scheduler.retire_workers(workers=list(found), close_workers=True, remove=True)
    return {address: host for address, host in found.items() if address in gone}
