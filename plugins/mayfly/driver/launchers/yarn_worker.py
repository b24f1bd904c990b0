"""One of Dask's workers as a container, and where containers come from."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Protocol

from distributed.core import Status
from distributed.deploy.spec import ProcessInterface
from skein.exceptions import SkeinError


class Containers(Protocol):
    """Where containers come from. Each call may raise SkeinError when there is no answer."""

    async def add(self, worker: str) -> str: ...
    async def remove(self, container: str) -> None: ...
    async def containers(self) -> dict[str, Any]: ...


class YarnWorker(ProcessInterface):  # type: ignore[misc]
    """One worker that Dask wants. It has a container, or the keeper gets it one."""

    def __init__(self, scheduler: str, *, name: int, source: Containers) -> None:
        super().__init__(scheduler=scheduler, name=name)
        self.name = name
        self.container: str | None = None
        self.registered_at = 0.0
        """Monotonic time at which the scheduler last had it; 0 = not in this container."""
        self.asked_at = 0.0
        """Monotonic time at which the container was asked for."""
        self.failures = 0
        """Containers in a row that ended before the worker had registered, and that `died` counts."""
        self.not_before = 0.0
        self._source = source

    async def start(self) -> None:
        """Asks, and does not wait for it to come; without an answer the keeper asks again."""
        await super().start()
        await self.ask()

    async def ask(self) -> None:
        self.registered_at, self.asked_at = 0.0, time.monotonic()
        with contextlib.suppress(SkeinError):
            self.container = await self._source.add(str(self.name))
            if self.status != Status.running:  # closed while we asked
                await self._source.remove(self.container)

    async def close(self) -> None:
        await super().close()
        if self.container is not None:
            with contextlib.suppress(SkeinError):
                await self._source.remove(self.container)
