"""Workers in containers of a YARN application; the scheduler stays in this process, on the driver's machine.

The order of things: ask the ResourceManager whether this can run at all, end what an earlier attempt has left, start
skein's Java process and the scheduler side by side, submit, wait until the application master has found its way back
to us, and only then ask for workers.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dask

from mayfly.contract import FailureClass, YarnPlan
from mayfly.driver.launchers import yarn_files
from mayfly.driver.launchers.base import Launch, LaunchError
from mayfly.driver.launchers.sizing import container_mib, worker_limit
from mayfly.driver.launchers.skein_client import open_client
from mayfly.driver.launchers.watchdog import Watchdog
from mayfly.driver.launchers.yarn_cluster import YarnCluster
from mayfly.driver.launchers.yarn_life import YarnLife
from mayfly.driver.launchers.yarn_losses import DASK_SETTINGS
from mayfly.driver.launchers.yarn_ports import address_towards, free_port, is_local, on_free_port
from mayfly.driver.node import gateway_port
from mayfly.errors import YarnError, YarnRefused, YarnUnavailable
from mayfly.yarn.facts import Size
from mayfly.yarn.resource_manager import ResourceManager
from mayfly.yarn.site import HadoopSite
from mayfly.yarn.tags import owner_tag, tag_of

MIB = 1 << 20


@asynccontextmanager
async def launch(launch: Launch) -> AsyncIterator[Any]:
    """See `base`. LaunchError says what cannot work here, and what to do."""
    plan = launch.order.yarn or YarnPlan()
    folder = launch.folder / "yarn"
    folder.mkdir(mode=0o700)
    (launch.folder / "logs").mkdir(exist_ok=True)
    opening = asyncio.create_task(asyncio.to_thread(open_client, launch.folder / "logs" / "skein.txt"))
    opening.add_done_callback(lambda task: task.cancelled() or task.exception())  # who waits for it hears of it
    manager, default_fs = await _prepare(launch, plan)
    address = plan.address or address_towards(manager.hosts)
    bind = address if is_local(address) else "0.0.0.0"
    watchdog = Watchdog(bind=bind, ports=plan.watchdog_ports, said=lambda worker, text: life.said(worker, text))
    try:
        await _or_network(watchdog.start(), "watchdog")
        life = YarnLife(
            launch=launch,
            plan=plan,
            manager=manager,
            watchdog=watchdog,
            address=address,
            default_fs=default_fs,
            folder=folder,
        )
        options = {
            "protocol": "tls://",
            "host": bind,
            "dashboard_address": f"127.0.0.1:{_dashboard_port(plan)}",
            "security": launch.security,
        }

        async def start(port: int) -> YarnCluster:
            return await life.make_cluster({**options, "port": port})

        with dask.config.set(DASK_SETTINGS):
            ports = plan.scheduler_ports
            async with await on_free_port(start, bind=bind, ports=ports, what="scheduler") as cluster:
                scheduler = f"tls://{address}:{cluster.scheduler.port}"
                files = yarn_files.worker_files(
                    launch,
                    scheduler=scheduler,
                    watchdog={"host": address, "port": watchdog.port, "word": watchdog.word},
                    ports=plan.worker_ports,
                    folder=folder,
                )
                client = await opening
                try:
                    await life.begin(client, files)
                    cluster.scale(max(1, launch.workers.minimum))
                    if launch.workers.adaptive:
                        cluster.adapt(minimum=launch.workers.minimum, maximum=launch.workers.maximum)
                    yield cluster
                finally:
                    await cluster.close()
                    client.close()
    finally:
        opening.cancel()
        await watchdog.close()


async def _prepare(launch: Launch, plan: YarnPlan) -> tuple[ResourceManager, str]:
    """Whether this can run here at all, and room for it; the address of the cluster's file system."""
    try:
        manager = await asyncio.to_thread(ResourceManager.find, os.environ)
        default_fs = _default_fs(HadoopSite.find(os.environ))
        await _check(launch, plan, manager)
        await end_earlier(launch, manager)
    except YarnRefused as error:
        raise LaunchError(_kind(error), str(error)) from error
    except YarnUnavailable as error:
        raise LaunchError(FailureClass.START_FAILED, f"{error}: nothing was started") from error
    return manager, default_fs


def _default_fs(site: HadoopSite) -> str:
    """LaunchError where YARN would answer with a NullPointerException."""
    found = site.get("fs.defaultFS") or site.get("fs.default.name") or "file:///"
    if found.startswith("file:"):
        raise LaunchError(
            FailureClass.START_FAILED,
            f"fs.defaultFS is {found} ({site.folder}/core-site.xml): YARN needs a file system that driver and nodes "
            "share, such as hdfs://, gs:// or s3a://. On a single machine without HDFS, viewfs does: set fs.defaultFS "
            "to viewfs://local/ and fs.viewfs.mounttable.local.linkFallback to file:///some/folder",
        )
    return found


async def _check(launch: Launch, plan: YarnPlan, manager: ResourceManager) -> None:
    workers = launch.workers
    try:
        worker_limit(workers.memory)
    except ValueError as error:
        raise LaunchError(FailureClass.QUOTA, str(error)) from error
    notes = await asyncio.to_thread(
        manager.check,
        plan,
        worker=Size(memory=container_mib(workers.memory) * MIB, cores=workers.cores),
        master=Size(memory=512 * MIB, cores=1),
        workers=max(1, workers.minimum),
    )
    for note in notes:
        launch.tell("say", text=note)


async def end_earlier(launch: Launch, manager: ResourceManager) -> None:
    """Jobs of one cluster run one after another: what lives of it belongs to an attempt whose driver died. The name
    alone proves nothing: another installation's cluster may have it, too."""
    tag, ours = tag_of(launch.order.cluster), owner_tag(launch.order.owner)
    until = time.monotonic() + 10
    told: set[str] = set()
    while left := [found for found in await asyncio.to_thread(manager.applications, tag) if ours in found.tags]:
        for application in left:
            if application.id not in told:
                told.add(application.id)
                launch.tell("say", text=f"ending {application.id}, which an earlier attempt has left behind")
                await asyncio.to_thread(manager.kill, application.id)
        if time.monotonic() > until:
            return  # it was told to end; its containers go when YARN gets to it
        await asyncio.sleep(0.5)


def _dashboard_port(plan: YarnPlan) -> int:
    """The target's, else the one that a gateway shows."""
    if plan.dashboard_ports == (0, 0):
        return gateway_port()
    return free_port("127.0.0.1", plan.dashboard_ports, "dashboard")


async def _or_network(starting: Any, what: str) -> None:
    try:
        await starting
    except OSError as error:
        raise LaunchError(FailureClass.NETWORK, f"{what}: {error}") from error


def _kind(error: YarnError) -> str:
    """A queue, a limit or a size that does not fit is a matter of quota; what YARN forbids is one of permission; a
    machine without a cluster's configuration is no start at all."""
    if "yarn-site.xml" in str(error):
        return FailureClass.START_FAILED
    return FailureClass.PERMISSION if re.search("kerberos|not allowed|access", str(error), re.I) else FailureClass.QUOTA
