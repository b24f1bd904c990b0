"""Dask's cluster object on YARN: `scale` and `adapt` are Dask's own, a worker is a container of the application.

The *keeper* looks about twice a second at what Dask wants, what YARN has, and who has registered, and asks anew for
what is missing: a container that was preempted, killed or has died, a worker that Dask has lost although its container
lives. Dask's own handling of lost workers is switched off: it would kill what the keeper has just asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from dask.utils import parse_timedelta
from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster
from distributed.scheduler import Scheduler
from distributed.security import Security
from skein.exceptions import SkeinError

from mayfly.driver.launchers.adaptive import Adaptive
from mayfly.driver.launchers.guarded import Guarded
from mayfly.driver.launchers.yarn_worker import Containers, YarnWorker

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between two containers for a worker that never gets up."""
UNKNOWN_SECONDS = 15.0
"""After which a container that the application master does not know was never there."""
OVER = ("SUCCEEDED", "FAILED", "KILLED")


class YarnCluster(SpecCluster):  # type: ignore[misc]
    """`died(worker, container)` gets each container that ended before its worker had registered, and counts it in
    `failures` where it should be; `unreachable` is awaited when the application master gives no answer, `ending` when
    the cluster closes: it ends all containers."""

    def __init__(
        self,
        *,
        source: Containers,
        scheduler: dict[str, Any],
        contact: Callable[[Scheduler], str],
        security: Security,
        died: Callable[[YarnWorker, Any], Awaitable[None]],
        unreachable: Callable[[], Awaitable[None]],
        ending: Callable[[], Awaitable[None]],
    ) -> None:
        self._source, self._contact, self._died, self._unreachable = source, contact, died, unreachable
        self._ending = ending
        self._keeper: asyncio.Task[None] | None = None
        self.seen: dict[str, Any] = {}
        """The containers of the last look."""
        self.ready_once = False
        """Whether a worker has ever registered."""
        self.leaving: set[Any] = set()
        """Names of workers that are being given back: their containers end before Dask has taken them off its list."""
        self._heirs: dict[Any, Any] = {}
        """Names of workers that are to leave and cannot yet, each with that of the worker that takes its place."""
        super().__init__(
            scheduler={"cls": Scheduler, "options": scheduler},
            worker={"cls": YarnWorker, "options": {"source": source}},
            security=security,
            asynchronous=True,
            name="yarn",
        )

    async def _start(self) -> None:
        await super()._start()
        self.scheduler.contact_address = self._contact(self.scheduler)

    def keep(self) -> None:
        """From now on containers may be asked for."""
        self._keeper = asyncio.create_task(self._keep())

    def adapt(self, *, minimum: int, maximum: int) -> Any:
        return super().adapt(Adaptive=YarnAdaptive, minimum=minimum, maximum=maximum)

    async def end(self) -> None:
        """The scheduler has gone: so shall the containers."""
        if self._keeper is not None:
            self._keeper.cancel()
        await self._ending()

    def replace(self, names: Iterable[Any]) -> None:
        """Ask for another worker beside each of these, which have nobody to hand their results to. Once these have
        ended, they are not asked for anew. Idempotent."""
        for name in set(names) & self.plan:
            heir = self.new_worker_spec()
            self.worker_spec.update(heir)
            (self._heirs[name],) = heir
        self._correct_state()

    def _replaced(self) -> set[Any]:
        return {name for name, heir in self._heirs.items() if name in self.worker_spec and heir in self.worker_spec}

    # What Dask's scaling counts is without them: else it would give their heirs back.

    @property
    def plan(self) -> set[Any]:
        return set(super().plan) - self._replaced()

    @property
    def requested(self) -> set[Any]:
        return set(super().requested) - self._replaced()

    def scale(self, n: int = 0) -> Any:
        return super().scale(n + len(self._replaced()))

    def forget_containers(self) -> None:
        """The application is gone, and all containers with it."""
        for worker in self.workers.values():
            worker.container, worker.not_before = None, 0.0

    def _update_worker_status(self, op: str, msg: Any) -> None:
        Cluster._update_worker_status(self, op, msg)

    async def _close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        self.worker_spec.clear()  # one shutdown of the application, and not a farewell to each worker
        self.workers.clear()
        for worker in self._created:
            worker.status = Status.closed
        await asyncio.gather(self._ending(), super()._close())

    async def _keep(self) -> None:
        guarded = Guarded(logger, "keeping the workers")
        while self.status in (Status.starting, Status.running) and self.scheduler.status == Status.running:
            await asyncio.sleep(LOOK_SECONDS)
            with guarded:
                try:
                    self.seen = await self._source.containers()
                except SkeinError:
                    await self._unreachable()
                    continue
                await self._repair(time.monotonic())

    async def _repair(self, now: float) -> None:
        lost_after = parse_timedelta(self._config("distributed.deploy.lost-worker-timeout"))
        present = {state.name for state in self.scheduler.workers.values()}
        self.ready_once = self.ready_once or bool(present)
        asking: list[YarnWorker] = []
        replaced = self._replaced()
        for worker in list(self.workers.values()):
            if worker.name not in self.worker_spec or worker.name in self.leaving or worker.status != Status.running:
                continue
            if worker.name in present:
                worker.registered_at, worker.failures = now, 0
            container = self.seen.get(worker.container or "")
            state = str(container.state) if container is not None else ""
            if state in OVER:
                worker.container = None
                if not worker.registered_at:
                    try:
                        await self._died(worker, container)
                    finally:
                        worker.not_before = now + min(LONGEST_PAUSE, 2.0 ** max(0, worker.failures - 1))
            elif worker.container and worker.registered_at and now - worker.registered_at > lost_after:
                logger.warning("worker %s is gone and its container is not: asking for another", worker.name)
                await self._source.remove(worker.container)
                worker.container = None
            elif worker.container and container is None and now - worker.asked_at > UNKNOWN_SECONDS:
                worker.container = None  # of an application that is gone: it died while we asked
            if worker.container is None and worker.name in replaced:
                for known in (self.worker_spec, self.workers, self._heirs):
                    known.pop(worker.name, None)
            elif worker.container is None and now >= worker.not_before:
                asking.append(worker)
        await asyncio.gather(*(worker.ask() for worker in asking))

    @staticmethod
    def _config(key: str) -> Any:
        import dask

        return dask.config.get(key)


class YarnAdaptive(Adaptive):
    """Gives back workers that the keeper does not ask for anew meanwhile."""

    cluster: YarnCluster

    async def scale_down(self, workers: Any) -> None:
        leaving = set(workers)
        self.cluster.leaving |= leaving
        try:
            await super().scale_down(workers)
        finally:
            self.cluster.leaving -= leaving
