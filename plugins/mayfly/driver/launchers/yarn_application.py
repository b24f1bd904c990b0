"""One YARN application on skein: submitted, proven reachable, asked for containers, ended. Blocking calls in threads.

The application master runs the watchdog; the service `worker` has no instances of its own, each container is asked for
by name. It restarts nothing: what ended is looked at here, and asked for anew under the same name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skein
from skein.exceptions import SkeinError

MASTER_MIB = 512
MASTER_JAVA_OPTIONS = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
"""It starts containers now and then: compiling more than that costs its start more than it ever gives back."""
SERVICE = "worker"
CALL_SECONDS = 60.0
ALIVE = ("WAITING", "REQUESTED", "RUNNING")
OVER = ("SUCCEEDED", "FAILED", "KILLED")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is submitted; a second application of the attempt is submitted from the same."""

    name: str
    tags: frozenset[str]
    queue: str
    node_label: str
    memory_mib: int
    cores: int
    files: Mapping[str, Path]
    environment: str
    """Address of the archive on the cluster's file system; empty when there is none."""
    worker_script: str
    master_script: str
    master_files: Mapping[str, Path]


def specification(request: Request, security: skein.Security) -> skein.ApplicationSpec:
    """As skein wants it."""
    files = {name: skein.File(source=str(path)) for name, path in request.files.items()}
    if request.environment:
        files["environment"] = skein.File(source=request.environment, type="archive", visibility="private")
    worker = skein.Service(
        resources=skein.Resources(memory=request.memory_mib, vcores=request.cores),
        script=request.worker_script,
        files=files,
        instances=0,
        max_restarts=0,
        allow_failures=True,
        node_label=request.node_label,
    )
    master = skein.Master(
        resources=skein.Resources(memory=MASTER_MIB, vcores=1),
        script=request.master_script,
        files={name: skein.File(source=str(path), type="file") for name, path in request.master_files.items()},
        env={"JAVA_TOOL_OPTIONS": MASTER_JAVA_OPTIONS},
        security=security,
        log_level="WARN",
    )
    return skein.ApplicationSpec(
        name=request.name,
        queue=request.queue,
        tags=set(request.tags),
        node_label=request.node_label,
        services={SERVICE: worker},
        master=master,
        max_attempts=1,
    )


class Application:
    """A submitted application. Calls that get no answer raise SkeinError."""

    def __init__(self, client: skein.Client, app_id: str) -> None:
        self.id = app_id
        self.address = ""
        """Of its application master, once connected."""
        self._client = client
        self._master: skein.ApplicationClient | None = None
        self._open: set[str] = set()
        """Containers asked for here that have not been seen to have ended."""
        self._over: dict[str, Any] = {}
        # Of its own: asyncio's default pool is small, and skein's calls may hang.
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="yarn")

    @classmethod
    async def submit(cls, client: skein.Client, spec: skein.ApplicationSpec) -> Application:
        app_id = await asyncio.to_thread(client.submit, spec)
        return cls(client, app_id)

    async def connect(self, security: skein.Security) -> None:
        """To the application master, which runs by now."""
        self._master = await self._call(self._client.connect, self.id, True, security)
        self.address = str(self._master.address)

    async def add(self, worker: str) -> str:
        """Ask for a container for this worker; its name, which no container of another application has."""
        master = self._connected()
        container = await self._call(master.add_container, SERVICE, {"MAYFLY_WORKER_NAME": worker})
        name = self._name(container.id)
        self._open.add(name)
        return name

    async def remove(self, container: str) -> None:
        """Idempotent."""
        with contextlib.suppress(SkeinError, ValueError, KeyError):
            if container.startswith(self._name("")):
                await self._call(self._connected().kill_container, container.removeprefix(self._name("")))

    async def containers(self) -> dict[str, Any]:
        """All there ever were, by name. Those that have ended do not change: they are asked for when one more has."""
        living = await self._those(ALIVE)
        if not self._open <= living.keys():
            self._over |= await self._those(OVER)
            self._open -= self._over.keys()
        return living | self._over

    async def _those(self, states: tuple[str, ...]) -> dict[str, Any]:
        found = await self._call(self._connected().get_containers, [SERVICE], states)
        return {self._name(container.id): container for container in found}

    async def shutdown(self, *, succeeded: bool, diagnostics: str) -> None:
        await self._call(self._connected().shutdown, "SUCCEEDED" if succeeded else "FAILED", diagnostics)

    def close(self) -> None:
        """Forget it; it is not ended."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._master is not None:
            self._master.close()

    def _connected(self) -> skein.ApplicationClient:
        if self._master is None:
            raise skein.exceptions.ConnectionError(f"{self.id}: not connected to its application master")
        return self._master

    def _name(self, container: str) -> str:
        return f"{self.id}/{container}"

    async def _call(self, function: Any, *arguments: Any) -> Any:
        """skein's own calls wait for ever when a machine has gone without a word."""
        calling = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        try:
            return await asyncio.wait_for(calling, CALL_SECONDS)
        except TimeoutError:
            raise skein.exceptions.TimeoutError(f"{self.id}: no answer for {CALL_SECONDS:.0f} s") from None
