"""What workers on other machines say travels by their nanny and Dask's own comm; here with a real nanny and worker."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Scheduler

from mayfly.driver.launchers.base import PRELOAD
from mayfly.driver.outputs import WorkerVoices

pytestmark = pytest.mark.timeout(300)


class Heard:
    """What the supervisor would hear."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def tell(self, event: str, **more: Any) -> None:
        self.events.append((event, more))

    def said(self) -> list[str]:
        texts = [more["text"] for event, more in self.events if event == "output" and more["worker"] == "3"]
        return "\n".join(texts).splitlines()

    async def until(self, done: Callable[[], Any]) -> None:
        for _ in range(1200):
            if done():
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"waited in vain; heard {self.events[-20:]}")


def with_worker(tmp_path: Path, act: Callable[[Client, Heard], Awaitable[None]]) -> None:
    """Run `act` with a worker named 3, started as in a container."""

    async def drain() -> None:
        pass

    async def work() -> None:
        heard = Heard()
        settings = {"env": {}, "folder": str(tmp_path), "output": "comm", "log": str(tmp_path / "dask.log")}
        (tmp_path / "worker.json").write_text(json.dumps(settings))
        async with Scheduler(port=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as scheduler:
            WorkerVoices(scheduler, folder=tmp_path / "logs", tell=heard.tell, drain=drain)
            command = [
                "-m",
                "distributed.cli.dask_worker",
                scheduler.address,
                "--name",
                "3",
                "--nanny",
                "--no-dashboard",
            ]
            loaded = ["--preload", str(PRELOAD), "--preload-nanny", str(PRELOAD), "--local-directory", str(tmp_path)]
            with (tmp_path / "container.log").open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *command,
                    *loaded,
                    env={**os.environ, "MAYFLY_WORKER_FILE": str(tmp_path / "worker.json")},
                    stdout=log,
                    stderr=log,
                )
            try:
                async with Client(scheduler.address, asynchronous=True) as client:
                    await client.wait_for_workers(1, timeout=120)
                    await act(client, heard)
            finally:
                process.terminate()
                await process.wait()

    asyncio.run(work())


def test_lines_of_python_of_children_and_the_last_words(tmp_path: Path) -> None:
    def speak() -> None:
        print("by Python ✓")
        os.system("echo by a child; echo on its stderr >&2")

    def die() -> None:
        os.write(1, b"last words")
        os._exit(3)

    async def act(client: Client, heard: Heard) -> None:
        await client.run(speak)
        await heard.until(lambda: {"by Python ✓", "by a child", "on its stderr"} <= set(heard.said()))
        await client.run(die, on_error="ignore")
        await heard.until(lambda: any(line.startswith("last words") for line in heard.said()))
        await heard.until(lambda: any(e == "worker exit" and "status 3" in m["text"] for e, m in heard.events))
        log = tmp_path / "logs" / "worker-3.txt"
        await heard.until(lambda: log.exists() and "Start worker at" in log.read_text())

    with_worker(tmp_path, act)
    assert b"by a child" in (tmp_path / "container.log").read_bytes()  # YARN's own copy


def test_a_flood_and_a_line_without_end(tmp_path: Path) -> None:
    def flood() -> None:
        for i in range(20_000):
            print(f"line {i} {'x' * 100}")
        os.write(1, b"y" * 200_000 + b"\n")
        print("after the flood")

    async def act(client: Client, heard: Heard) -> None:
        await client.run(flood)
        await heard.until(lambda: "after the flood" in heard.said())
        lines = heard.said()
        numbered = [line for line in lines if line.startswith("line ")]
        assert numbered[0] == f"line 0 {'x' * 100}"
        assert len(numbered) > 1000
        assert all(len(more["text"]) <= 10_000 for event, more in heard.events if event == "output")

    with_worker(tmp_path, act)
