"""YARN's account of an attempt: what its applications used, container by container and node by node. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable

from mayfly.contract import YarnAccount, YarnNodeAccount
from mayfly.yarn.exits import Cause, cause_of
from mayfly.yarn.facts import Application, Container


def account(applications: Iterable[Application], containers: Iterable[Container]) -> YarnAccount:
    """`containers`: those of workers, each once or more often; the last word on one counts."""
    applications = list(applications)
    workers = {container.id: container for container in containers}
    nodes: dict[str, YarnNodeAccount] = {}
    failed = preempted = 0
    for container in workers.values():
        taken = container.state in ("FAILED", "KILLED") and cause_of(container.message) is Cause.PREEMPTED
        broken = container.state == "FAILED" and not taken
        preempted, failed = preempted + taken, failed + broken
        old = nodes.get(container.host, YarnNodeAccount())
        nodes[container.host] = YarnNodeAccount(
            containers=old.containers + 1,
            failed=old.failed + broken,
            preempted=old.preempted + taken,
            container_seconds=round(old.container_seconds + _seconds(container), 3),
        )
    return YarnAccount(
        applications=tuple(found.id for found in applications),
        queue=next((found.queue for found in applications if found.queue), ""),
        memory_mib_seconds=sum(found.memory_mib_seconds for found in applications),
        vcore_seconds=sum(found.vcore_seconds for found in applications),
        containers_started=len(workers),
        containers_failed=failed,
        containers_preempted=max(preempted, sum(found.preempted for found in applications)),
        queue_wait=round(sum(_wait(found) for found in applications), 3),
        nodes=dict(sorted(nodes.items())),
    )


def _seconds(container: Container) -> float:
    if container.started_at is None:
        return 0.0
    return max(0.0, (container.ended_at or time.time()) - container.started_at)


def _wait(application: Application) -> float:
    if application.submitted_at is None or application.launched_at is None:
        return 0.0
    return max(0.0, application.launched_at - application.submitted_at)
