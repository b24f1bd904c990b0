"""What ends an application on YARN, and what must not: a ResourceManager and application masters as the test says."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed.security import Security

skein = pytest.importorskip("skein")

from mayfly.contract import Environment, FailureClass, YarnPlan  # noqa: E402
from mayfly.driver.launchers.base import Launch, LaunchError  # noqa: E402
from mayfly.driver.launchers.watchdog import Watchdog  # noqa: E402
from mayfly.driver.launchers.yarn import end_earlier  # noqa: E402
from mayfly.driver.launchers.yarn_application import Application, Request  # noqa: E402
from mayfly.driver.launchers.yarn_cluster import YarnCluster  # noqa: E402
from mayfly.driver.launchers.yarn_lease import PROVEN_TIMES, Lease  # noqa: E402
from mayfly.driver.launchers.yarn_life import YarnLife  # noqa: E402
from mayfly.driver.launchers.yarn_ports import address_towards, on_free_port  # noqa: E402
from mayfly.yarn.resource_manager import ResourceManager  # noqa: E402
from mayfly.yarn.tags import tags  # noqa: E402
from tests.driver.driving import PATIENCE, make_order  # noqa: E402
from tests.launchers.resource_manager import yarn  # noqa: E402

pytestmark = pytest.mark.timeout(300)

ID = "application_1_1"


def launch(folder: Path, told: list[str] | None = None) -> Launch:
    heard = [] if told is None else told
    return Launch(
        order=make_order(launcher="yarn"),
        folder=folder,
        job=folder,
        security=Security(),
        tell=lambda event, **more: heard.append(event),
    )


def life_of(launch: Launch, manager: ResourceManager) -> YarnLife:
    return YarnLife(
        launch=launch,
        plan=YarnPlan(),
        manager=manager,
        watchdog=Watchdog(bind="127.0.0.1", ports=(0, 0), said=lambda worker, text: None),
        address="127.0.0.1",
        default_fs="",
        folder=launch.folder,
    )


def test_an_earlier_attempts_application_is_ended_and_not_that_of_another_owner(tmp_path: Path) -> None:
    """Another installation on the same cluster may have a run of the same name."""
    order = launch(tmp_path).order
    given = {"cluster": order.cluster, "job": order.job, "attempt": 1}
    with yarn({ID: tags(owner=order.owner, **given), "application_1_2": tags(owner="another", **given)}) as cluster:
        asyncio.run(end_earlier(launch(tmp_path), cluster.manager()))
        assert cluster.killed == [ID]


def request() -> Request:
    return Request(
        name="x",
        tags=frozenset(),
        queue="default",
        node_label="",
        memory_mib=512,
        cores=1,
        files={},
        environment="",
        worker_script="true",
        master_script="true",
        master_files={},
    )


class Silent:
    """A connection to an application master on a machine that has gone without a word."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def get_containers(self, *_: Any) -> list[Any]:
        self.over.wait(PATIENCE)
        raise skein.exceptions.ConnectionError("gone")

    def close(self) -> None:
        self.over.set()


class Ended(Application):
    """An application of which the cluster is told, connected to this master."""

    def __init__(self, master: Any) -> None:
        super().__init__(None, ID)
        self._master = master


@pytest.mark.parametrize("master", [None, Silent], ids=["dead", "silent"])
def test_an_application_whose_master_does_not_answer_is_killed_at_the_end(
    master: type[Silent] | None, tmp_path: Path
) -> None:
    """Within the time that the host has for its end."""
    told: list[str] = []

    async def run(manager: ResourceManager) -> None:
        life = life_of(launch(tmp_path, told), manager)
        life._application = Ended(master() if master else None)
        life.applications.append(ID)
        await life.end()

    with yarn({ID: ()}) as cluster:
        asyncio.run(run(cluster.manager()))
        assert cluster.killed == [ID]
    assert told == ["account"]


class Refuses:
    """A client of skein on whose cluster the environment is not there."""

    def __init__(self) -> None:
        self.security = skein.Security.new_credentials()

    def submit(self, _: Any) -> str:
        raise skein.exceptions.DriverError("FileNotFoundException: File does not exist: hdfs://nowhere/environment")


@pytest.mark.parametrize("tools", ["", "false"], ids=["no Hadoop", "a broken one"])
def test_a_second_application_that_cannot_be_submitted_ends_the_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: str
) -> None:
    """Nothing would ever submit another: it must not be waited for."""
    if tools:
        (tmp_path / "yarn").symlink_to(shutil.which(tools) or tools)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "pack.tar.gz").write_bytes(b"pack")
    pack = Environment(path="pack.tar.gz", sha256=hashlib.sha256(b"pack").hexdigest(), bytes=4, python="3.11.0")
    given = launch(tmp_path)
    heard: list[dict[str, Any]] = []
    given = replace(
        given,
        order=replace(given.order, environment=pack),
        staging=f"file://{tmp_path}",
        tell=lambda event, **more: heard.append({"event": event, **more}),
    )

    async def work(manager: ResourceManager) -> None:
        life = life_of(given, manager)
        life._client, life._application = Refuses(), Ended(None)
        life._request = request()
        life.applications.append(ID)
        options = {"protocol": "tcp://", "host": "127.0.0.1", "port": 0, "dashboard_address": ":0"}
        async with life.make_cluster(options):
            await life._unreachable()
        (failed,) = [told for told in heard if told["event"] == "failed"]
        assert failed["kind"] == FailureClass.WORKER_LOST
        assert "the environment could not be brought" in failed["error"]

    with yarn({ID: ()}) as cluster:
        cluster.killed.append(ID)
        asyncio.run(work(cluster.manager()))


def test_the_lifetime_is_renewed_while_the_event_loop_is_busy() -> None:
    """And it is a long one once the watchdog was heard."""
    watched = threading.Event()

    async def work(manager: ResourceManager) -> None:
        lease = Lease(manager=manager, grace=30.0, newest=lambda: ID, watched=watched.is_set, every=0.1)
        lease.start()
        for _ in range(2):  # nothing is awaited
            assert cluster.renewed.acquire(timeout=PATIENCE)
        assert max(cluster.lifetimes) < 60
        watched.set()
        for _ in range(2):  # one may have been on its way
            assert cluster.renewed.acquire(timeout=PATIENCE)
        assert 60 < cluster.lifetimes[-1] <= PROVEN_TIMES * 30 + 1  # YARN's clock may be ours of a moment later
        lease.close()

    with yarn({ID: ()}) as cluster:
        asyncio.run(work(cluster.manager()))


def test_a_port_that_another_driver_is_faster_to_take(tmp_path: Path) -> None:
    """It was free when it was looked at."""

    async def work(manager: ResourceManager) -> None:
        life = life_of(launch(tmp_path), manager)
        tried: list[int] = []
        with socket.socket() as other:

            async def start(port: int) -> YarnCluster:
                tried.append(port)
                if len(tried) == 1:
                    other.bind(("127.0.0.1", port))
                    other.listen()
                options = {"protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": ":0"}
                return await life.make_cluster({**options, "port": port})

            ports = (20000, 20999)
            async with await on_free_port(start, bind="127.0.0.1", ports=ports, what="scheduler") as cluster:
                assert len(tried) >= 2
                assert cluster.scheduler.port == tried[-1]
                assert cluster is life.cluster
            taken = other.getsockname()[1]
            with pytest.raises(LaunchError, match=f"no free port for the scheduler in {taken}-{taken} on 127.0.0.1"):
                await on_free_port(start, bind="127.0.0.1", ports=(taken, taken), what="scheduler")

    with yarn({}) as cluster:
        asyncio.run(work(cluster.manager()))


def test_another_error_than_a_port_that_is_taken_is_no_reason_to_try_the_next() -> None:
    async def start(port: int) -> None:
        raise PermissionError("not you")

    with pytest.raises(PermissionError):
        asyncio.run(on_free_port(start, bind="127.0.0.1", ports=(20000, 20999), what="scheduler"))


def test_the_address_is_one_that_dask_takes() -> None:
    """Dask writes address and port as one word, which an IPv6 address without brackets breaks."""
    assert address_towards((("localhost", 8032),)) == "127.0.0.1"
    with pytest.raises(LaunchError, match=r"set `yarn\.address`"):
        address_towards((("::1", 8032),))
