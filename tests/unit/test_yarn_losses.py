"""What a lost worker on YARN means: pure decisions, and Dask's own scheduler with real workers that really die."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import dask
import pytest
from distributed import Client, Scheduler
from distributed.scheduler import KilledWorker

from mayfly.driver.launchers import yarn_losses
from mayfly.driver.launchers.yarn_leaving import retire_leaving
from mayfly.driver.launchers.yarn_losses import Loss, Losses, Seen, application_of, container_in, explain
from mayfly.yarn.exits import Cause
from mayfly.yarn.facts import NOTHING, Container, Node, NodeState

pytestmark = pytest.mark.timeout(600)  # up to seven workers are started, one after another

ID = "container_1795276116904_0007_01_000003"
APP = "application_1795276116904_0007"
RUNNING = Container(id=ID, state="RUNNING", node="n1:8042")
NODE = Node(id="n1:8041", host="n1", http="n1:8042", state=NodeState.RUNNING, total=NOTHING, used=NOTHING)


def seen(container: Container | None = RUNNING, node: NodeState = NodeState.RUNNING, ended: str = "") -> Seen:
    return Seen(
        containers=() if container is None else (container,),
        nodes=(replace(NODE, state=node),),
        ended=frozenset([ended] if ended else []),
    )


def over(message: str, state: str = "FAILED") -> Container:
    return replace(RUNNING, state=state, message=message)


@pytest.mark.parametrize(
    ("facts", "word", "age", "cause"),
    [
        (seen(over("Container preempted by scheduler")), "", 0, Cause.PREEMPTED),
        (seen(over("Container released on a *lost* node")), "", 0, Cause.NODE_LOST),
        (seen(over("Container killed on request. Exit code is 143")), "", 5, Cause.KILLED),
        (seen(over("Exit code is 143"), NodeState.DECOMMISSIONED), "", 0, Cause.DECOMMISSIONED),
        (seen(over("Exit code is 143"), NodeState.LOST), "", 0, Cause.NODE_LOST),
        (seen(over("1.1 GB of 1 GB physical memory used"), NodeState.LOST), "", 0, Cause.NODE_LOST),
        (seen(over("1.1 GB of 1 GB physical memory used")), "", 0, Cause.MEMORY),
        (seen(over("", "KILLED")), "", 0, Cause.ENDED_BY_US),
        (seen(over("Completed successfully.", "SUCCEEDED")), "", 5, Cause.EXITED),
        (seen(None, ended=APP), "", 0, Cause.MASTER_DIED),
        (seen(RUNNING, ended=APP), "", 0, Cause.MASTER_DIED),
        (seen(RUNNING, NodeState.LOST), "", 0, Cause.NODE_LOST),
        (seen(), "Worker process 12 was killed by signal 9", 0, Cause.EXITED),
        (seen(), "Worker tls://x exceeded 95% memory budget. Restarting...", 0, Cause.MEMORY),
        (seen(), "", yarn_losses.SILENCE + 1, Cause.NODE_LOST),
        (seen(None), "", yarn_losses.PATIENCE + 1, Cause.UNKNOWN),
        (Seen(containers=None, nodes=None), "", yarn_losses.PATIENCE + 1, Cause.UNKNOWN),
    ],
)
def test_explained(facts: Seen, word: str, age: float, cause: Cause) -> None:
    found = explain(ID, facts, word=word, age=age)
    assert found is not None
    assert found[0] is cause


@pytest.mark.parametrize(
    "facts",
    [
        seen(),
        seen(None),
        Seen(containers=None, nodes=None),
        seen(None, ended="application_1795276116904_0006"),
        seen(over("Container failed during execution, see logs for more information.")),
    ],
)
@pytest.mark.parametrize("word", ["", "Worker process 12 was killed by signal 15"])
def test_not_known_yet(facts: Seen, word: str) -> None:
    """A nanny may live long enough to see YARN's SIGTERM end its worker: that is not its last word."""
    assert explain(ID, facts, word=word, age=3) is None


def test_a_container_is_known_by_the_folder_of_its_worker() -> None:
    folder = f"/data/nm/usercache/me/appcache/{APP}/{ID}/scratch/dask-scratch-space/worker-x"
    assert container_in(folder) == ID
    assert (
        container_in("/x/container_e17_1410901177871_0001_01_000005/y") == "container_e17_1410901177871_0001_01_000005"
    )
    assert application_of("container_e17_1410901177871_0001_01_000005") == "application_1410901177871_0001"
    assert container_in("/scratch/here") == ""
    assert application_of("") == ""


# ---------------------------------------------------------------- with Dask


class Yarn:
    """Workers below folders that look like containers; what `explains` says is what YARN says of each that ends."""

    def __init__(self, scheduler: Scheduler, folder: Path) -> None:
        self.scheduler, self.folder = scheduler, folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.containers: dict[str, Container] = {}
        self.told: list[Loss] = []
        self.words: dict[str, str] = {}
        self.number = 1
        self.losses = Losses(scheduler, look=self.look, tell=self.told.append)

    async def look(self, applications: frozenset[str]) -> Seen:
        assert applications <= {APP}
        return Seen(containers=tuple(self.containers.values()), nodes=(NODE,))

    async def add(self) -> str:
        self.number += 1
        name = f"container_1795276116904_0007_01_{self.number:06d}"
        before = len(self.scheduler.workers)
        self.processes[name] = subprocess.Popen(
            [
                *[sys.executable, "-m", "distributed.cli.dask_worker", self.scheduler.address, "--nanny"],
                *["--name", str(self.number), "--nthreads", "1", "--no-dashboard", "--memory-limit", "0"],
                *["--host", "127.0.0.1", "--local-directory", str(self.folder / name)],
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.containers[name] = Container(id=name, state="RUNNING", node="n1:8042")
        while len(self.scheduler.workers) == before:
            await asyncio.sleep(0.05)
        return name

    def busy(self) -> list[str]:
        return [container_in(ws.local_directory) for ws in self.scheduler.workers.values() if ws.processing]

    async def until_busy(self) -> str:
        while not self.busy():
            await asyncio.sleep(0.02)
        return self.busy()[0]

    async def end(self, name: str, message: str) -> None:
        """The container ends; YARN's word comes when `speak` is called."""
        self.kill(name)
        while name in (container_in(ws.local_directory) for ws in self.scheduler.workers.values()):
            await asyncio.sleep(0.02)
        self.words[name] = message

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def speak(self) -> None:
        for name, message in self.words.items():
            self.containers[name] = replace(self.containers[name], state="FAILED", message=message)
        self.words.clear()

    async def all_told(self, count: int) -> list[Cause]:
        while len(self.told) < count:
            await asyncio.sleep(0.05)
        return [loss.cause for loss in self.told]


@asynccontextmanager
async def yarn(folder: Path) -> AsyncIterator[tuple[Yarn, Client]]:
    with dask.config.set(yarn_losses.DASK_SETTINGS):
        async with Scheduler(port=0, dashboard_address=":0", host="127.0.0.1") as scheduler:
            place = Yarn(scheduler, folder)
            async with Client(scheduler.address, asynchronous=True) as client:
                try:
                    yield place, client
                finally:
                    await place.losses.close()
                    for name in list(place.processes):
                        place.kill(name)


def wait_for(path: str, i: int = 0) -> int:
    import time
    from pathlib import Path

    while not Path(path).exists():
        time.sleep(0.05)
    return i


def kill_me(path: str) -> None:
    import os

    with open(path, "a") as file:
        file.write("x")
    os._exit(3)


def test_a_task_survives_six_preemptions(tmp_path: Path) -> None:
    async def run() -> None:
        async with yarn(tmp_path) as (place, client):
            go = tmp_path / "go"
            future = client.submit(wait_for, str(go), 7)
            for _ in range(6):
                await place.add()
                await place.end(await place.until_busy(), "Container preempted by scheduler")
                place.speak()
            await place.add()
            assert await place.all_told(6) == [Cause.PREEMPTED] * 6
            go.touch()
            assert await future == 7
            assert place.scheduler.tasks[future.key].suspicious == 0
            assert place.told[0].text == "worker 2 was lost: preempted (Container preempted by scheduler)"

    asyncio.run(asyncio.wait_for(run(), 500))


def test_a_task_that_kills_its_workers_fails_after_three(tmp_path: Path) -> None:
    """Each time the nanny says so, and brings the worker back in the same container."""

    async def run() -> None:
        async with yarn(tmp_path) as (place, client):
            for _ in range(2):
                await place.add()
            future = client.submit(kill_me, str(tmp_path / "tries"))
            other = client.submit(wait_for, str(tmp_path), 5)
            with pytest.raises(KilledWorker, match="on 3 different workers"):
                await future
            assert (tmp_path / "tries").read_text() == "xxx"
            assert await other == 5
            assert await place.all_told(3) == [Cause.EXITED] * 3
            assert await client.submit(wait_for, str(tmp_path), 9, key="next") == 9

    asyncio.run(asyncio.wait_for(run(), 500))


def test_containers_that_die_with_their_task_are_counted_and_no_more_than_three_of_them(tmp_path: Path) -> None:
    """Also when YARN's word comes later than the next deaths would; preempted ones in between do not count."""

    async def run() -> None:
        async with yarn(tmp_path) as (place, client):
            for _ in range(5):
                await place.add()
            future = client.submit(wait_for, str(tmp_path / "never"), key="culprit")
            for message in (
                "Container killed on request. Exit code is 137",
                "Container preempted by scheduler",
                "Container exited with a non-zero exit code 137",
            ):
                await place.end(await place.until_busy(), message)
            task = place.scheduler.tasks["culprit"]
            assert not place.busy()  # three at once: it waits for YARN's word
            assert task.state == "no-worker"
            place.speak()
            await place.end(await place.until_busy(), "1.1 GB of 1 GB physical memory used. Killing container.")
            place.speak()
            with pytest.raises(KilledWorker):
                await future
            assert len(place.scheduler.workers) == 1
            causes = await place.all_told(4)
            assert sorted(causes) == sorted([Cause.KILLED, Cause.PREEMPTED, Cause.KILLED, Cause.MEMORY])
            assert not task.worker_restrictions

    asyncio.run(asyncio.wait_for(run(), 500))


def test_a_restart_is_no_loss(tmp_path: Path) -> None:
    async def run() -> None:
        async with yarn(tmp_path) as (place, client):
            await place.add()
            future = client.submit(wait_for, str(tmp_path / "never"))
            await place.until_busy()
            await client.restart()
            assert future.status == "cancelled"
            assert await client.submit(wait_for, str(tmp_path), 1) == 1
            await asyncio.sleep(1)
            assert place.told == []

    asyncio.run(asyncio.wait_for(run(), 500))


def test_a_task_that_is_cancelled_while_it_waits_is_forgotten(tmp_path: Path) -> None:
    async def run() -> None:
        async with yarn(tmp_path) as (place, client):
            for _ in range(4):
                await place.add()
            future = client.submit(wait_for, str(tmp_path / "never"), key="culprit")
            for _ in range(3):
                await place.end(await place.until_busy(), "Container preempted by scheduler")
            assert not place.busy()
            await future.cancel()
            place.speak()
            assert await place.all_told(3) == [Cause.PREEMPTED] * 3
            assert await client.submit(wait_for, str(tmp_path), 1) == 1

    asyncio.run(asyncio.wait_for(run(), 500))


def test_workers_leave_a_node_that_is_decommissioned_with_their_results(tmp_path: Path) -> None:
    async def run() -> None:
        async with yarn(tmp_path) as (place, client):
            names = [await place.add() for _ in range(2)]
            there = {container_in(ws.local_directory): ws.address for ws in place.scheduler.workers.values()}
            results = client.map(bytes, [10_000_000] * 4, pure=False)
            await client.gather(client.map(len, results))
            place.containers[names[0]] = replace(place.containers[names[0]], node="http://n2:8042")
            leaving = replace(NODE, host="n2", http="n2:8042", state=NodeState.DECOMMISSIONING)
            assert await retire_leaving(place.scheduler, place.containers.values(), ()) == {}
            gone = await retire_leaving(place.scheduler, place.containers.values(), [leaving])
            assert gone == {there[names[0]]: "n2"}
            while len(place.scheduler.workers) > 1:
                await asyncio.sleep(0.05)
            assert await client.gather(client.map(len, results)) == [10_000_000] * 4
            assert place.scheduler.task_prefixes["bytes"].state_counts["memory"] == 4
            # nowhere to go: it stays
            place.containers[names[1]] = replace(place.containers[names[1]], node="n2:8042")
            assert await retire_leaving(place.scheduler, place.containers.values(), [leaving]) == {}
            assert len(place.scheduler.workers) == 1

    asyncio.run(asyncio.wait_for(run(), 500))
