"""The way back, with the real script in a real bash."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.driver.launchers.watchdog import Watchdog
from tests.driver.driving import PATIENCE


@pytest.fixture
def masters() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start_master(script: str, masters: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([shutil.which("bash") or "bash", "-c", script], stderr=subprocess.PIPE)
    masters.append(process)
    return process


def test_it_is_heard_and_ends_when_the_driver_does(masters: list[subprocess.Popen[bytes]]) -> None:
    async def work() -> None:
        watchdog = Watchdog(bind="127.0.0.1", ports=(0, 0), said=lambda worker, text: None)
        await watchdog.start()
        master = start_master(watchdog.script("127.0.0.1", grace=8), masters)
        await asyncio.wait_for(watchdog.seen.wait(), PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while watchdog.beats < 6:  # every 2 s: longer than the grace
                await asyncio.sleep(0.05)
        assert master.poll() is None
        await watchdog.close()
        code = await asyncio.to_thread(master.wait, PATIENCE)
        assert code == 1
        assert master.stderr is not None
        assert b"no answer from the driver at 127.0.0.1:" in master.stderr.read()

    asyncio.run(work())


def test_a_busy_event_loop_is_no_dead_driver() -> None:
    """As Dask's, while it takes a large graph or a function that a script runs on the scheduler."""

    async def work() -> None:
        watchdog = Watchdog(bind="127.0.0.1", ports=(0, 0), said=lambda worker, text: None)
        await watchdog.start()
        with socket.create_connection(("127.0.0.1", watchdog.port), timeout=PATIENCE) as line:
            for _ in range(3):  # nothing is awaited: the loop can do nothing meanwhile
                line.sendall(f"{watchdog.word}\n".encode())
                assert line.recv(100).endswith(b"\n")
        assert watchdog.beats == 3
        assert not watchdog.seen.is_set()
        await asyncio.wait_for(watchdog.seen.wait(), PATIENCE)
        await watchdog.close()

    asyncio.run(work())


def test_somebody_else_on_the_port_is_not_the_driver(masters: list[subprocess.Popen[bytes]]) -> None:
    async def work() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.readline():
                    asked.set()
                    writer.write(b"hello\n")
            finally:
                writer.close()

        asked = asyncio.Event()
        stranger = await asyncio.start_server(answer, "127.0.0.1", 0)
        watchdog = Watchdog(bind="127.0.0.1", ports=(0, 0), said=lambda worker, text: None)
        watchdog.port = stranger.sockets[0].getsockname()[1]  # the driver had it before
        script = watchdog.script("127.0.0.1", grace=20)
        assert await asyncio.to_thread(start_master(script, masters).wait, PATIENCE) == 1
        assert asked.is_set()
        stranger.close()

    asyncio.run(work())


def test_who_does_not_know_the_word_is_not_heard() -> None:
    async def work() -> None:
        watchdog = Watchdog(bind="127.0.0.1", ports=(0, 0), said=lambda worker, text: pytest.fail(text))
        await watchdog.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", watchdog.port)
        writer.write(b"wrong 3 I am a worker\n")
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        assert not watchdog.seen.is_set()
        writer.close()
        await watchdog.close()

    asyncio.run(work())


def test_a_full_range_of_ports_is_named() -> None:
    async def work() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            watchdog = Watchdog(bind="127.0.0.1", ports=(port, port), said=lambda worker, text: None)
            with pytest.raises(OSError, match=f"no free port in {port}-{port} on 127.0.0.1"):
                await watchdog.start()
            await watchdog.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"python": "3.5"}, "python: the driver has Python 3.5, the worker would have "),
        ({"versions": {"no-such-package": "1"}}, "no-such-package: not installed in "),
        ({"versions": {"dask": "1.0"}}, "has "),
    ],
)
def test_a_worker_that_cannot_start_says_why(tmp_path: Path, change: dict[str, object], said: str) -> None:
    """`mayfly_worker.py` as it runs in a container, with a Python that will not do."""
    import json

    from mayfly.driver.launchers.yarn_files import WORKER

    async def work() -> None:
        heard: list[tuple[str, str]] = []
        watchdog = Watchdog(bind="127.0.0.1", ports=(0, 0), said=lambda worker, text: heard.append((worker, text)))
        await watchdog.start()
        settings = {
            "python": "{}.{}".format(*sys.version_info[:2]),
            "versions": {},
            "watchdog": {"host": "127.0.0.1", "port": watchdog.port, "word": watchdog.word},
            **change,
        }
        (tmp_path / "mayfly.json").write_text(json.dumps(settings))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-E", "-s", str(WORKER), cwd=tmp_path, env={"MAYFLY_WORKER_NAME": "3"}
        )
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 78
        assert heard
        assert heard[0][0] == "3"
        assert heard[0][1].startswith(said) or said in heard[0][1]
        await watchdog.close()

    asyncio.run(work())
