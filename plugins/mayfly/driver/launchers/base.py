"""The seam behind which Dask workers start.

A launcher is an asynchronous context manager that yields a Dask cluster object whose scheduler lives in this process
(`scheduler`, `scale`, `adapt`, `close`; and `end`, where something is left when only the scheduler has gone). It has
started, or asked for, `workers.minimum` workers (at least one); leaving the context ends them all. Every worker has the
job's folder first on its path, and loads the preload file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from distributed.security import Security

from mayfly.contract import JobOrder, WorkersPlan

PRELOAD = Path(__file__).parent.parent / "mayfly_preload.py"


class LaunchError(Exception):
    """Dask cannot be started, or cannot go on. `kind` is a value of `contract.FailureClass` where the launcher knows
    it, else empty."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Tell(Protocol):
    """How a launcher speaks to the supervisor: the event's name and its details, see `Children.hear`."""

    def __call__(self, event: str, **more: Any) -> None: ...


def tell_nobody(event: str, **more: Any) -> None:
    """For a launcher that nobody listens to."""


async def no_need_to_wait() -> None:
    """For a launcher that nobody listens to."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a launcher needs. `folder` is private scratch space; `job` the unpacked job folder; `staging` the address
    of the store that holds `order.environment`. `drain` waits while the supervisor cannot hear more."""

    order: JobOrder
    folder: Path
    job: Path
    security: Security
    staging: str = ""
    preload: Path = PRELOAD
    tell: Tell = tell_nobody
    drain: Callable[[], Awaitable[None]] = no_need_to_wait

    @property
    def workers(self) -> WorkersPlan:
        return self.order.workers


Launcher = Callable[[Launch], AbstractAsyncContextManager[Any]]

LAUNCHERS = {
    "processes": "mayfly.driver.launchers.processes:launch",
    "yarn": "mayfly.driver.launchers.yarn:launch",
}
"""One line a launcher; the module is imported when a target asks for it."""


def open_launcher(name: str) -> Launcher:
    """The launcher of that name; ValueError names the known ones."""
    if name not in LAUNCHERS:
        raise ValueError(f"unknown launcher {name!r}; known: {', '.join(sorted(LAUNCHERS))}")
    module, _, attribute = LAUNCHERS[name].partition(":")
    launcher: Launcher = getattr(import_module(module), attribute)
    return launcher
