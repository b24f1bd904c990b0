"""The keeper of workers on YARN: Dask's own scheduler and workers, and a YARN whose containers do as the test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Worker
from distributed.security import Security

skein = pytest.importorskip("skein")

from mayfly.contract import FailureClass, YarnPlan  # noqa: E402
from mayfly.driver.launchers.base import Launch  # noqa: E402
from mayfly.driver.launchers.watchdog import Watchdog  # noqa: E402
from mayfly.driver.launchers.yarn_files import WORKER  # noqa: E402
from mayfly.driver.launchers.yarn_life import TAKEN_AWAY, YarnLife  # noqa: E402
from mayfly.yarn.http import Http  # noqa: E402
from mayfly.yarn.resource_manager import ResourceManager  # noqa: E402
from tests.driver.driving import PATIENCE, make_order  # noqa: E402
from tests.launchers.resource_manager import yarn  # noqa: E402

pytestmark = pytest.mark.timeout(600)

FAILED = "Container failed during execution, see logs for more information."
"""skein's words for any exit code above 0."""
PREEMPTED = "Container preempted by scheduler"


class Place(YarnLife):
    """A life without a Hadoop. `fates` are the messages with which the next containers end before their worker is
    there; when none is left, a container is a worker in this process. `no_answer` is raised instead of an answer."""

    def __init__(self, folder: Path, *, node: str = "127.0.0.1:1", page: str = "http://127.0.0.1:1") -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.fates: list[str] = []
        self.no_answer: list[Exception] = []
        self.asked: list[str] = []
        self.looks = 0
        self.workers: dict[str, Worker] = {}
        self._there: dict[str, Any] = {}
        self._nodes: dict[str, str] = {}
        self.node = node
        self._scratch = folder
        order = make_order(launcher="yarn", yarn=YarnPlan())
        super().__init__(
            launch=Launch(order=order, folder=folder, job=folder, security=Security(), tell=self._hear),
            plan=YarnPlan(),
            manager=ResourceManager(http=Http([page], user="me"), hosts=(), site=folder, user="me"),
            watchdog=Watchdog(bind="127.0.0.1", ports=(0, 0), said=self.said),
            address="127.0.0.1",
            default_fs="",
            folder=folder,
        )

    def _hear(self, event: str, **more: Any) -> None:
        self.told.append((event, more))

    def heard(self, event: str) -> list[dict[str, Any]]:
        return [more for name, more in self.told if name == event]

    async def add(self, worker: str) -> str:
        self.asked.append(worker)
        name = f"application_1_1/worker_{len(self.asked)}"
        if self.fates:
            self._there[name] = self._container(name, "FAILED", self.fates.pop(0))
        else:
            assert self.cluster is not None
            self._there[name] = there = self._container(name, "RUNNING", "")
            folder = str(self._scratch / there.yarn_container_id)
            address = self.cluster.scheduler.address
            self.workers[name] = await Worker(address, name=int(worker), nthreads=1, local_directory=folder)
        return name

    async def remove(self, container: str) -> None:
        await self.workers[container].close()

    async def containers(self) -> dict[str, Any]:
        self.looks += 1
        if self.no_answer:
            raise self.no_answer.pop(0)
        for name, worker in self.workers.items():
            if worker.status.name == "closed" and self._there[name].state == "RUNNING":
                self._there[name] = self._container(name, "SUCCEEDED", "Completed successfully.")
        return dict(self._there)

    async def lose(self, message: str) -> None:
        """All containers end."""
        for name, worker in self.workers.items():
            await worker.close()
            self._there[name] = self._container(name, "FAILED", message)

    def _container(self, name: str, state: str, message: str) -> Any:
        number = int(name.rpartition("_")[2])
        return skein.model.Container(
            service_name="worker",
            instance=number,
            state=state,
            yarn_container_id=f"container_1_0001_01_{number:06d}",
            yarn_node_http_address=self._nodes.setdefault(name, self.node),
            start_time=None,
            finish_time=None,
            exit_message=message,
        )

    async def until(self, done: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done():
                await asyncio.sleep(0.05)

    async def until_ready(self, count: int = 1) -> None:
        assert self.cluster is not None
        living = self.workers.values
        await self.until(
            lambda: (
                self.heard("failed")
                or len(self.cluster.scheduler.workers)
                == sum(worker.status.name == "running" for worker in living())
                == count
            )
        )
        assert self.heard("failed") == []


@asynccontextmanager
async def kept(place: Place, workers: int = 1) -> AsyncIterator[Place]:
    cluster = place.make_cluster({"protocol": "tcp://", "host": "127.0.0.1", "port": 0, "dashboard_address": None})
    cluster._contact = lambda scheduler: scheduler.address
    async with cluster:
        cluster.keep()
        cluster.scale(workers)
        try:
            yield place
        finally:
            for worker in place.workers.values():
                await worker.close()


def test_a_job_that_ran_survives_a_bad_node(tmp_path: Path) -> None:
    """Its only worker is lost with its node, and as many replacements as would fail a start die at once."""

    async def run() -> None:
        async with kept(Place(tmp_path)) as place:
            await place.until_ready()
            await place.until(lambda: place.cluster is not None and place.cluster.ready_once)
            place.fates = [FAILED] * 3
            await place.lose("Container released on a *lost* node")
            await place.until(lambda: not place.fates)
            await place.until_ready()

    asyncio.run(run())


@pytest.mark.parametrize("message", [PREEMPTED, "Container released on a *lost* node"])
def test_a_start_is_not_failed_by_what_yarn_explains(tmp_path: Path, message: str) -> None:
    async def run() -> None:
        place = Place(tmp_path)
        place.fates = [message] * 4
        async with kept(place):
            await place.until_ready()
            assert place.asked == ["0"] * 5

    asyncio.run(run())


@pytest.mark.parametrize("message", [FAILED, "IOException: No space left on device"])
def test_a_start_fails_after_three_deaths_that_nobody_excuses(tmp_path: Path, message: str) -> None:
    """A full disk is the node's fault, but waiting does not empty it."""

    async def run() -> None:
        place = Place(tmp_path)
        place.fates = [message] * 100
        async with kept(place):
            await place.until(lambda: place.heard("failed"))
            (failed,) = place.heard("failed")
            assert failed["kind"] == FailureClass.START_FAILED
            assert message in failed["error"]
            assert place.asked[:3] == ["0"] * 3

    asyncio.run(run())


def test_a_start_is_not_failed_by_a_node_that_is_taken_away(tmp_path: Path) -> None:
    """Its container's log says so: of an exit code skein tells nothing."""
    words = "mayfly: node-7 is about to be taken away (preempted)"
    assert TAKEN_AWAY.search(words)
    assert "is about to be taken away (preempted)" in WORKER.read_text()

    class Node(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"LogContents:\n{words}\n".encode())

        def log_message(self, *_: Any) -> None:
            pass

    async def run() -> None:
        place = Place(tmp_path, node=f"127.0.0.1:{server.server_port}")
        place.fates = [FAILED] * 4
        async with kept(place):
            await place.until_ready()

    with ThreadingHTTPServer(("127.0.0.1", 0), Node) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asyncio.run(run())
        server.shutdown()


def test_the_keeper_goes_on_after_what_nobody_has_thought_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One worker must still be replaced afterwards; the log tells it once."""

    class Stray(Place):
        async def _unreachable(self) -> None:
            raise FileNotFoundError("hadoop")

    async def run() -> None:
        async with kept(Stray(tmp_path)) as place:
            await place.until_ready()
            place.no_answer = [
                *[TypeError("odd answer")] * 2,
                *[skein.exceptions.ConnectionError("no answer")] * 2,
            ]
            await place.until(lambda: not place.no_answer)
            await place.lose(PREEMPTED)
            await place.until_ready()

    asyncio.run(run())
    errors = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert errors == [TypeError, FileNotFoundError]


def test_workers_that_are_given_back_are_not_asked_for_anew(tmp_path: Path) -> None:
    """Dask takes them off its list together, when the last of them has handed over its results."""

    async def run() -> None:
        async with kept(Place(tmp_path), workers=3) as place:
            cluster = place.cluster
            assert cluster is not None
            await place.until_ready(3)
            by_name = {worker.name: worker for worker in place.workers.values()}
            adaptive = cluster.adapt(minimum=1, maximum=3)
            adaptive.stop()  # the test gives them back
            async with Client(cluster, asynchronous=True) as client:
                held = await client.scatter({"x": 1}, workers=[by_name[2].address])
                taking = by_name[0].state
                taking.transfer_incoming_count_limit = taking.transfer_incoming_bytes_throttle_threshold = 0  # not yet
                giving_back = asyncio.create_task(adaptive.scale_down([1, 2]))
                await place.until(lambda: by_name[1].status.name == "closed")
                looked = place.looks
                await place.until(lambda: place.looks > looked + 3)
                assert not giving_back.done()
                assert sorted(place.asked) == ["0", "1", "2"]
                taking.transfer_incoming_count_limit = 50
                await giving_back
                assert await held["x"] == 1
                looked = place.looks
                await place.until(lambda: place.looks > looked + 1)
            assert sorted(place.asked) == ["0", "1", "2"]
            assert [state.name for state in cluster.scheduler.workers.values()] == [0]
            assert cluster.leaving == set()

    asyncio.run(run())


def once(path: str) -> str:
    """Its result cannot be computed a second time."""
    with open(path, "x"):
        return "once"


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_node_leaves_that_has_all_workers(tmp_path: Path, adaptive: bool) -> None:
    """Nobody can take their results: another worker comes first, and then they go."""

    async def run() -> None:
        place = Place(tmp_path, node="n1:8042", page=cluster.url)
        async with kept(place):
            await place.until_ready()
            assert place.cluster is not None
            if adaptive:
                place.cluster.adapt(minimum=1, maximum=1)
            async with Client(place.cluster, asynchronous=True) as client:
                future = client.submit(once, str(tmp_path / "done"))
                assert await future == "once"
                place.node = "n2:8042"
                cluster.leaving.append("n1:8042")
                following = asyncio.create_task(place._watch.follow_nodes())
                await place.until(lambda: place.heard("say"))
                assert "n1 is being decommissioned: its worker has left" in place.heard("say")[0]["text"]
                assert await future == "once"
                looked = place.looks
                await place.until(lambda: place.looks > looked + 3)
                assert place.asked == ["0", "1"]
                assert place.cluster.worker_spec.keys() == place.cluster.plan == {1}
                assert [state.name for state in place.cluster.scheduler.workers.values()] == [1]
                following.cancel()

    with yarn({}) as cluster:
        asyncio.run(run())
