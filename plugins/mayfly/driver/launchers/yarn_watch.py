"""What is looked at all the time while an application lives: why workers are missing, why some were lost, and which
nodes are about to go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Protocol

from skein.exceptions import SkeinError

from mayfly.driver.launchers.base import Launch
from mayfly.driver.launchers.guarded import Guarded
from mayfly.driver.launchers.sizing import MIB, container_mib
from mayfly.driver.launchers.yarn_cluster import YarnCluster
from mayfly.driver.launchers.yarn_leaving import retire_leaving, retire_named, workers_on
from mayfly.driver.launchers.yarn_losses import Loss, Losses, Seen
from mayfly.driver.outputs import WorkerVoices
from mayfly.errors import MayflyError
from mayfly.yarn.facts import Container, Size, containers_of
from mayfly.yarn.resource_manager import ResourceManager

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0


class Life(Protocol):
    """What is looked at, see `YarnLife`. `gone`: containers of applications that have ended."""

    cluster: YarnCluster | None
    applications: list[str]
    gone: list[Container]
    started: bool

    async def containers(self) -> dict[str, Any]: ...


class YarnWatch:
    """Speaks by `launch.tell`. `say_why` and `follow_nodes` run until they are cancelled."""

    def __init__(self, life: Life, *, launch: Launch, manager: ResourceManager) -> None:
        self._life, self._launch, self._manager = life, launch, manager
        self._losses: Losses | None = None
        self._told_to_leave: set[tuple[str, str]] = set()

    def listen(self, scheduler: Any) -> WorkerVoices:
        """From now on losses are explained, and what workers say is passed on."""
        self._losses = Losses(scheduler, look=self._look, tell=self._lost)
        return WorkerVoices(
            scheduler,
            folder=self._launch.folder / "logs",
            tell=self._launch.tell,
            drain=self._launch.drain,
            exited=self._losses.process_died,
            leaving=self._taken_away,
        )

    async def close(self) -> None:
        if self._losses is not None:
            await self._losses.close()

    async def say_why(self) -> None:
        """Why workers are missing, as long as some are."""
        size = Size(memory=container_mib(self._launch.workers.memory) * MIB, cores=self._launch.workers.cores)
        said, guarded = "", Guarded(logger, "finding out why workers are missing")
        while True:
            with guarded:
                text = await self._why(size)
                if text != said:
                    self._launch.tell("waiting", text=text)
                    said = text
            await asyncio.sleep(LOOK_SECONDS)

    async def _why(self, size: Size) -> str:
        cluster, applications = self._life.cluster, self._life.applications
        if cluster is None or not applications:
            return ""
        wanted, have = len(cluster.worker_spec), len(cluster.scheduler.workers)
        if not self._life.started:  # nobody has been asked for yet
            wanted = max(1, self._launch.workers.minimum)
        if have >= wanted:
            return ""
        return await asyncio.to_thread(
            self._manager.why_waiting, applications[-1], wanted=wanted, have=have, worker=size
        )

    async def follow_nodes(self) -> None:
        """Workers leave a node that is being decommissioned, with their results."""
        guarded = Guarded(logger, "retiring workers of nodes that leave")
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            left: dict[str, str] = {}
            with guarded, contextlib.suppress(MayflyError):
                left = await self._leave()
            for host in sorted(set(left.values())):
                count = sum(place == host for place in left.values())
                workers = "its worker has" if count == 1 else f"its {count} workers have"
                self._launch.tell(
                    "say", text=f"node {host} is being decommissioned: {workers} left, with their results"
                )

    async def _leave(self) -> dict[str, str]:
        nodes = await asyncio.to_thread(self._manager.leaving)
        cluster = self._life.cluster
        if not nodes or cluster is None:
            return {}
        containers = containers_of(cluster.seen.values())
        left = await retire_leaving(cluster.scheduler, containers, nodes)
        workers = cluster.scheduler.workers
        stay = workers_on(workers.values(), containers, nodes)
        cluster.replace(workers[address].name for address in stay)
        return left

    async def _taken_away(self, name: str, host: str) -> None:
        """The cloud takes the node of this worker away."""
        cluster = self._life.cluster
        if cluster is None:
            return
        if (name, host) not in self._told_to_leave:
            self._told_to_leave.add((name, host))
            self._launch.tell("say", text=f"node {host} is about to be taken away (preempted): worker {name} leaves")
        if await retire_named(cluster.scheduler, name):
            self._launch.tell("say", text=f"worker {name} has left {host}, with its results")

    async def _look(self, applications: frozenset[str]) -> Seen:
        """For the explanation of lost workers, which were in containers of these applications."""
        containers = nodes = None
        with contextlib.suppress(SkeinError):
            containers = (*self._life.gone, *containers_of((await self._life.containers()).values()))
        with contextlib.suppress(MayflyError):
            nodes = await asyncio.to_thread(self._manager.nodes)
        lives = [(app_id, await asyncio.to_thread(self._manager.state, app_id)) for app_id in applications]
        return Seen(containers=containers, nodes=nodes, ended=frozenset(app_id for app_id, life in lives if life.ended))

    def _lost(self, loss: Loss) -> None:
        self._launch.tell("say", text=loss.text)
        self._launch.tell("worker exit", text=loss.text)
