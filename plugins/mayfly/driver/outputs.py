"""What workers on other machines say, in the host: their nannies send it over Dask's own comm (see `mayfly_preload`).

Output goes on to the supervisor, which puts it into the job's log as `[worker 3] ...`. Dask's own log of a worker goes
to a file at once: YARN deletes a container's folder with the container.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

LOG_BYTES = 1 << 20
"""Of each worker's log that is kept: its end."""


class WorkerVoices:
    """Adds handlers to a scheduler; `drain` holds a worker back that says more than the supervisor can hear. `exited`
    gets a worker's name and how its process ended, `leaving` a worker's name and its host that is to be taken away."""

    def __init__(
        self,
        scheduler: Any,
        *,
        folder: Path,
        tell: Callable[..., None],
        drain: Callable[[], Awaitable[None]],
        exited: Callable[[str, str], None] = lambda name, text: None,
        leaving: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        self._folder, self._tell, self._drain, self._exited = folder, tell, drain, exited
        self._leaving = leaving
        folder.mkdir(exist_ok=True)
        scheduler.handlers["mayfly_output"] = self._output
        scheduler.handlers["mayfly_exit"] = self._exit
        scheduler.handlers["mayfly_log"] = self._log
        scheduler.handlers["mayfly_leaving"] = self._leave

    async def _output(self, name: str, text: str) -> None:
        self._tell("output", worker=str(name), text=text)
        await self._drain()

    async def _exit(self, name: str, text: str) -> None:
        self._tell("worker exit", text=text, worker=str(name))
        self._exited(str(name), text)

    async def _leave(self, name: str, host: str) -> None:
        if self._leaving is not None:
            await self._leaving(str(name), str(host))

    async def _log(self, name: str, text: str) -> None:
        self.keep(name, text)

    def keep(self, name: str, text: str) -> None:
        """Add to this worker's log."""
        safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in str(name))
        path = self._folder / f"worker-{safe}.txt"
        with path.open("ab") as file:
            file.write(text.encode("utf-8", "replace"))
            full = file.tell() > 2 * LOG_BYTES
        if full:
            path.write_bytes(path.read_bytes()[-LOG_BYTES:])
