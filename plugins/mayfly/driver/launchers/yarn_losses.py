"""Which lost worker YARN explains, and what that means for the tasks it ran.

Dask counts each unexpected loss against every task the worker was processing, and fails a task above
`distributed.scheduler.allowed-failures`. On YARN most losses are nobody's fault: preemption, a lost or decommissioned
node, the death of the application master. These are forgiven. Our rule is three *unexplained* losses of one task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mayfly.driver.launchers.yarn_exits import Cause
from mayfly.driver.launchers.yarn_facts import Container, Life, Node

UNEXPLAINED_DEATHS = 3
"""Of workers, with the same task running: then the task fails."""

DASK_SETTINGS = {"distributed.scheduler.allowed-failures": 1_000_000}
"""To be set in the host before the scheduler is made: Dask's own count shall not decide, ours does."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One lost worker. `text` is what the log and the classification shall say of it."""

    worker: str
    """Its Dask name."""
    container: str
    node: str
    cause: Cause
    text: str


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What can be found out about YARN at one moment; None = could not be asked."""

    containers: tuple[Container, ...] | None
    nodes: tuple[Node, ...] | None
    application: Life


class Losses:
    """Watches a scheduler's losses. `look` is awaited while losses are unexplained, about once a second; `tell` gets
    each loss once, when its cause is decided.

    Use: `losses = Losses(scheduler, look=..., tell=...)`; `await losses.close()` at the end.
    """

    def __init__(self, scheduler: Any, *, look: Callable[[], Awaitable[Seen]], tell: Callable[[Loss], None]) -> None:
        raise NotImplementedError

    def process_died(self, worker: str, how: str) -> None:
        """The nanny of this worker (Dask name) reports that the worker's process has died while its container lives:
        unexplained, at once."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


async def retire_leaving(scheduler: Any, nodes: tuple[Node, ...]) -> tuple[str, ...]:
    """Retire the workers on nodes that are DECOMMISSIONING (their results move to others first). Returns the addresses
    of the workers that were asked to go; one that is alone stays. Call it whenever nodes were read (every few s)."""
    raise NotImplementedError
