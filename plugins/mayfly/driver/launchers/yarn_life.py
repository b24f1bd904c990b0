"""The life of the application: submitted, proven, kept, submitted once more when its master dies, ended.

The cluster object outlives its application: workers keep their names, and the keeper asks the second application for
the same workers. A second death is the attempt's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from skein.exceptions import SkeinError

from mayfly.contract import FailureClass, YarnPlan, to_json
from mayfly.driver.launchers import yarn_files
from mayfly.driver.launchers.base import Launch, LaunchError
from mayfly.driver.launchers.sizing import container_mib
from mayfly.driver.launchers.watchdog import Watchdog
from mayfly.driver.launchers.yarn_application import Application, Request, specification
from mayfly.driver.launchers.yarn_cluster import YarnCluster
from mayfly.driver.launchers.yarn_environment import bring, place_of, remove
from mayfly.driver.launchers.yarn_lease import Lease
from mayfly.driver.launchers.yarn_logs import container_log, last_lines
from mayfly.driver.launchers.yarn_watch import YarnWatch
from mayfly.driver.launchers.yarn_worker import YarnWorker
from mayfly.driver.outputs import WorkerVoices
from mayfly.errors import MayflyError
from mayfly.staging.stores import open_store
from mayfly.yarn.exits import Cause, cause_of
from mayfly.yarn.facts import Container, Life, containers_of
from mayfly.yarn.resource_manager import ResourceManager
from mayfly.yarn.tags import tags

POLL_SECONDS = 0.25
WAY_BACK_SECONDS = 30.0
"""From the application master's start to its first word to us."""
ORDERLY_SECONDS = 2.0
"""For each of the three steps of an orderly end; then it is killed. All must fit into the host's CLOSE_SECONDS."""
MOVES = 3
"""How often the application is submitted anew because its master came up where it must not stay."""
DEAD_STARTS = 3
"""Containers in a row that die for the same worker, before any worker of the job was ever ready: nothing will come of
it. Not those of all workers together: one bad node could take three at once."""
TAKEN_AWAY = re.compile(r"^mayfly: \S+ is about to be taken away", re.MULTILINE)
"""What `mayfly_worker.py` says before it leaves such a node to others; skein does not pass on its exit code."""


class YarnLife:
    """`begin` once, `end` once; in between it is the source of containers for the cluster (see `Containers`)."""

    def __init__(
        self,
        *,
        launch: Launch,
        plan: YarnPlan,
        manager: ResourceManager,
        watchdog: Watchdog,
        address: str,
        default_fs: str,
        folder: Path,
    ) -> None:
        self._launch, self._plan, self._manager, self._watchdog = launch, plan, manager, watchdog
        self._address, self._default_fs, self._folder = address, default_fs, folder
        self._place = ""
        self._client: Any = None
        self._request: Request | None = None
        self._application: Application | None = None
        self.applications: list[str] = []
        self.gone: list[Container] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._moving = asyncio.Lock()
        self._words: dict[str, str] = {}
        self.started = self._failed = self._died_once = False
        self.cluster: YarnCluster | None = None
        self.voices: WorkerVoices | None = None
        self._watch = YarnWatch(self, launch=launch, manager=manager)
        self._lease = Lease(
            manager=manager,
            grace=plan.grace,
            newest=lambda: self.applications[-1] if self.applications else "",  # also one that is on its way
            watched=watchdog.seen.is_set,
        )

    # ------------------------------------------------------------ from start to end

    def make_cluster(self, scheduler: dict[str, Any]) -> YarnCluster:
        """Not started; its scheduler gets these options."""
        self.cluster = YarnCluster(
            source=self,
            scheduler=scheduler,
            contact=lambda scheduler: f"tls://{self._address}:{scheduler.port}",
            security=self._launch.security,
            died=self._died,
            unreachable=self._unreachable,
            ending=self.end,
        )
        return self.cluster

    async def begin(self, client: Any, files: dict[str, Path]) -> None:
        """Submit and wait until the application master is there and has reached us. LaunchError."""
        self._client = client
        order, plan = self._launch.order, self._plan
        masters = {}
        if plan.fast_heartbeat:
            site = self._manager.site
            masters["aaa-conf.jar"] = yarn_files.fast_heartbeat_jar(site, self._folder / "aaa-conf.jar")
        if order.environment is not None:
            self._place = place_of(order.environment, default_fs=self._default_fs, user=self._manager.user)
        self._request = Request(
            name=order.cluster,
            tags=tags(cluster=order.cluster, job=order.job, attempt=order.attempt, owner=order.owner),
            queue=plan.queue or "default",
            node_label=plan.node_label or "",
            memory_mib=container_mib(order.workers.memory),
            cores=order.workers.cores,
            files=files,
            environment=self._place,
            worker_script=yarn_files.worker_script("environment/bin/python3" if self._place else sys.executable),
            master_script=self._watchdog.script(self._address, grace=plan.grace),
            master_files=masters,
        )
        self._lease.start()
        self._tasks.append(asyncio.create_task(self._watch.say_why()))
        await self._submit()
        self._tasks.append(asyncio.create_task(self._watch.follow_nodes()))
        assert self.cluster is not None
        self.started = True
        self.voices = self._watch.listen(self.cluster.scheduler)
        self.cluster.keep()

    async def end(self) -> None:
        """Orderly; what does not end so is killed."""
        for task in self._tasks:
            task.cancel()
        self._lease.close()
        await self._watch.close()
        application, self._application = self._application, None
        if application is not None:
            if not await self._ended_orderly(application):
                with contextlib.suppress(MayflyError):
                    await asyncio.to_thread(self._manager.kill, application.id)
            application.close()
        if self.applications:
            account = await asyncio.to_thread(self._manager.account, self.applications, self.gone)
            self._launch.tell("account", account=to_json(account))

    async def _ended_orderly(self, application: Application) -> bool:
        """False at once where its master gives no answer."""
        try:
            async with asyncio.timeout(ORDERLY_SECONDS):
                self._account_of(await application.containers())
            async with asyncio.timeout(ORDERLY_SECONDS):
                await application.shutdown(succeeded=True, diagnostics="the job has ended")
            async with asyncio.timeout(ORDERLY_SECONDS):
                return await asyncio.to_thread(self._ended_soon, application.id)
        except (TimeoutError, SkeinError):
            return False

    def _account_of(self, containers: dict[str, Any]) -> None:
        """Remember them: when the application is over, nobody knows them any more."""
        self.gone += containers_of(containers.values())

    # ------------------------------------------------------------ containers

    async def add(self, worker: str) -> str:
        return await self._living().add(worker)

    async def remove(self, container: str) -> None:
        await self._living().remove(container)

    async def containers(self) -> dict[str, Any]:
        return await self._living().containers()

    def _living(self) -> Application:
        if self._application is None:
            raise SkeinError("no application yet")
        return self._application

    # ------------------------------------------------------------ what goes wrong

    def said(self, worker: str, text: str) -> None:
        """A worker that cannot start says why."""
        self._words[worker] = text
        self._launch.tell("say", text=f"worker {worker} cannot start: {text}")

    async def _died(self, worker: YarnWorker, container: Any) -> None:
        """A container ended before its worker was ready."""
        assert self.cluster is not None
        word = self._words.pop(str(worker.name), "")
        log = await asyncio.to_thread(container_log, container)
        if log and self.voices is not None:
            self.voices.keep(str(worker.name), log)
        message = str(container.exit_message or "").strip()
        text = word or "\n".join(filter(None, (message, last_lines(log)))) or "no reason given"
        self._launch.tell("worker exit", text=f"worker {worker.name} did not start: {text}")
        if not _excused(message, log):
            worker.failures += 1
        if self.cluster.ready_once:
            return
        if word:
            self._fail(LaunchError(FailureClass.VERSION_MISMATCH, f"worker {worker.name}: {word}"))
        elif worker.failures >= DEAD_STARTS:
            more = await self._forget_environment(text)
            text = f"{worker.failures} containers ended before a worker was ready; the last one said: {text}{more}"
            self._fail(LaunchError(FailureClass.START_FAILED, text))

    async def _forget_environment(self, text: str) -> str:
        """An archive that cannot be unpacked is of no use to anybody: the next attempt brings it anew."""
        if not self._place or not re.search(r"gzip|gunzip|[Uu]nexpected (EOF|end)|tar: ", text):
            return ""
        try:
            await asyncio.to_thread(remove, self._place)
        except (LaunchError, OSError, subprocess.SubprocessError) as error:
            return f"\nthe environment {self._place} is damaged, and could not be removed: {error}"
        return f"\nthe environment {self._place} was damaged; it is removed, and the next attempt brings it anew"

    async def _unreachable(self) -> None:
        """The application master gives no answer: it has died, or it only seems so."""
        application = self._application
        if application is None or self._moving.locked():
            return
        async with self._moving:
            life = await asyncio.to_thread(self._manager.state, application.id)
            if not life.ended or self._failed:
                return
            assert self.cluster is not None
            self._account_of(self.cluster.seen)
            self.cluster.seen = {}
            self._application = None
            self.cluster.forget_containers()
            reason = await self._why_ended(application.id)
            if self._died_once:
                text = f"the application master died a second time ({application.id}: {reason})"
                self._fail(LaunchError(FailureClass.WORKER_LOST, text))
                return
            self._died_once = True
            self._launch.tell("say", text=f"{application.id} has ended ({reason}); submitting it once more")
            try:
                await self._submit()
            except Exception as error:  # whatever it is: nobody submits a third one
                kind = getattr(error, "kind", "") or FailureClass.START_FAILED
                kind = FailureClass.WORKER_LOST if kind == FailureClass.START_FAILED else kind
                self._fail(LaunchError(kind, f"the application master died, and so did the next one: {error}"))

    def _fail(self, error: LaunchError) -> None:
        if not self._failed:
            self._failed = True
            self._launch.tell("failed", error=str(error), kind=str(error.kind))

    # ------------------------------------------------------------ submitting

    async def _submit(self) -> None:
        """Until its master is where it may stay; when that does not come about, it stays where it is."""
        for moves in range(MOVES, -1, -1):
            application = await self._submit_once()
            host = await self._bad_place(application.id) if self._plan.master_not_on else ""
            if not host or not moves:
                break
            self._launch.tell("say", text=f"the application master is on {host}, which may vanish: submitting anew")
            application.close()
            with contextlib.suppress(MayflyError):
                await asyncio.to_thread(self._manager.kill, application.id)
                await asyncio.to_thread(self._ended_soon, application.id)
        if host:
            text = f"the application master stays on {host}, which may vanish: {MOVES} more tries found no other place"
            self._launch.tell("say", text=f"{text}. Should it vanish, all workers start anew, once")
        self._application = application

    async def _bad_place(self, app_id: str) -> str:
        """The host of its master, where that must not stay."""
        with contextlib.suppress(MayflyError):
            host = (await asyncio.to_thread(self._manager.application, app_id)).am_host
            return host if re.search(self._plan.master_not_on, host) else ""
        return ""

    async def _submit_once(self) -> Application:
        assert self._request is not None
        self._watchdog.forget()
        number = len(self.applications) + 1
        request = replace(self._request, tags=self._request.tags | {f"application-{number}"})
        application = await self._submitted(specification(request, self._client.security))
        self.applications.append(application.id)
        if self._plan.priority is not None:
            try:
                await asyncio.to_thread(self._manager.set_priority, application.id, self._plan.priority)
            except MayflyError as error:
                self._launch.tell("say", text=f"priority {self._plan.priority} was not set: {error}")
        try:
            await self._arrived(application.id)
            await self._connect(application)
        except BaseException:
            with contextlib.suppress(MayflyError):
                await asyncio.to_thread(self._manager.kill, application.id)
            raise
        return application

    async def _submitted(self, spec: Any) -> Application:
        """The environment is taken to be where it belongs; when it is not, it is brought, and all is said again."""
        try:
            try:
                return await Application.submit(self._client, spec)
            except (SkeinError, ValueError) as error:
                environment = self._launch.order.environment
                if environment is None or not re.search(r"does not exist|No such file|FileNotFound", str(error)):
                    raise
            await asyncio.to_thread(
                bring,
                environment,
                store=open_store(self._launch.staging),
                place=self._place,
                folder=self._folder,
                say=lambda text: self._launch.tell("say", text=text),
            )
            return await Application.submit(self._client, spec)
        except (SkeinError, ValueError, KeyError) as error:
            raise LaunchError(FailureClass.START_FAILED, f"YARN did not take the application: {error}") from error
        except (OSError, subprocess.SubprocessError) as error:
            text = f"the environment could not be brought to the cluster's file system: {error}"
            raise LaunchError(FailureClass.START_FAILED, text) from error

    async def _arrived(self, app_id: str) -> None:
        """Until its master has reached us."""
        await asyncio.to_thread(self._lease.renew)
        running_since = 0.0
        next_look = 0.0
        while not self._watchdog.seen.is_set():
            if time.monotonic() >= next_look:
                life = await asyncio.to_thread(self._manager.state, app_id)
                if life.ended:
                    reason = await self._why_ended(app_id)
                    raise LaunchError(FailureClass.START_FAILED, f"{app_id} ended at once: {reason}")
                if life is Life.RUNNING:
                    running_since = running_since or time.monotonic()
                    if time.monotonic() - running_since > WAY_BACK_SECONDS:
                        raise self._no_way_back(app_id)
                next_look = time.monotonic() + 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._watchdog.seen.wait(), POLL_SECONDS)

    async def _connect(self, application: Application) -> None:
        """The way there, proven too: workers are asked for by it."""
        try:
            await application.connect(self._client.security)
            await application.containers()
        except SkeinError as error:
            raise LaunchError(
                FailureClass.NETWORK,
                f"{application.id} runs and has reached this machine, but its application master at "
                f"{application.address or 'an unknown address'} cannot be reached from here: {error}",
            ) from error

    def _no_way_back(self, app_id: str) -> LaunchError:
        return LaunchError(
            FailureClass.NETWORK,
            f"{app_id} runs, but its application master has not reached this machine at {self._address}:"
            f"{self._watchdog.port} within {WAY_BACK_SECONDS:.0f} s. Open the ports from the nodes to this machine "
            "(`yarn.ports` of the target fixes them), or set `yarn.address` to where nodes reach it",
        )

    async def _why_ended(self, app_id: str) -> str:
        with contextlib.suppress(MayflyError):
            found = await asyncio.to_thread(self._manager.application, app_id)
            return " ".join(found.diagnostics.split())[-600:] or str(found.life)
        return "the ResourceManager does not say why"

    def _ended_soon(self, app_id: str) -> bool:
        until = time.monotonic() + ORDERLY_SECONDS
        while time.monotonic() < until:
            if self._manager.state(app_id).ended:
                return True
            time.sleep(0.1)
        return False


def _excused(message: str, log: str) -> bool:
    """Whether the next container may do better, by YARN's own word or the node's. A full disk stays full."""
    cause = cause_of(message)
    return (cause.explained and cause is not Cause.DISKS) or bool(TAKEN_AWAY.search(log))
