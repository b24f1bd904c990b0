"""The way back: the application master connects to the driver and asks every 2 s whether it still lives.

Two uses. The application ends by itself `grace` seconds after the driver's last answer, whatever ended the driver. And
the first connection proves, before any worker is asked for, that containers reach this machine. Workers that cannot
start use the same port to say why.

Both sides show a random word of the run, so that neither a stranger nor another program that was given the port
later is taken for the other. The master's side is pure bash: a node needs nothing for it.

It answers from a thread of its own: user code keeps the event loop of Dask's scheduler busy for as long as it likes,
and that is no dead driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
import threading
from collections.abc import Callable, Coroutine
from typing import Any

BEAT_SECONDS = 2.0

_SCRIPT = """\
# Ends, and with it the application, when the driver has not answered for {grace} seconds.
trap '' PIPE
beat() {{
  while :; do
    if exec 3<>/dev/tcp/{host}/{port}; then
      while printf '%s\\n' {question} >&3 && IFS= read -r -t {patience} -u 3 answer && [ "$answer" = {answer} ]; do
        echo beat || exit
        sleep {interval}
      done
      exec 3>&-
    fi
    sleep 1
  done 2>/dev/null
}}
exec 4< <(beat)
while IFS= read -r -t {grace} -u 4 line; do :; done
echo "mayfly: no answer from the driver at {host}:{port} for {grace} s" >&2
kill $!
exit 1
"""


class Watchdog:
    """Listens on (`bind`, a port of `ports`). `seen` is set once the application master was heard, `beats` is how
    often; `said(worker, text)` gets what workers say, in the event loop that has started it."""

    def __init__(self, *, bind: str, ports: tuple[int, int], said: Callable[[str, str], None]) -> None:
        self._bind, self._ports, self._said = bind, ports, said
        self._question, self._answer = secrets.token_hex(16), secrets.token_hex(16)
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.seen = asyncio.Event()
        self.beats = 0
        self.port = 0

    async def start(self) -> None:
        """OSError that names the range when no port of it is free."""
        self._caller = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(self._loop,), name="watchdog", daemon=True).start()
        try:
            await self._there(self._listen())
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Idempotent."""
        if self._loop is not None:
            await self._there(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    async def _there(self, work: Coroutine[Any, Any, None]) -> None:
        """In the other thread."""
        assert self._loop is not None
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _listen(self) -> None:
        self._server = await listen_in_range(self._serve, self._bind, self._ports)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for line in self._lines:
            line.close()
        if serving := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(serving, timeout=1)

    def script(self, host: str, *, grace: float) -> str:
        """The application master's bash script. `host` is how containers reach this machine, `grace` in seconds."""
        return _SCRIPT.format(
            host=shlex.quote(host),
            port=self.port,
            question=self._question,
            answer=self._answer,
            grace=max(1, round(grace)),
            interval=BEAT_SECONDS,
            patience=max(1, round(grace / 2)),
        )

    def forget(self) -> None:
        """The next application master must prove its way anew."""
        self.seen.clear()

    @property
    def word(self) -> str:
        """What a worker must show."""
        return self._question

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(writer)
        with contextlib.suppress(OSError, ValueError, RuntimeError, asyncio.LimitOverrunError):
            while line := await reader.readline():
                word, _, rest = line.decode("utf-8", "replace").rstrip("\n").partition(" ")
                if not secrets.compare_digest(word.encode(), self._question.encode()):
                    break
                if rest:
                    worker, _, text = rest.partition(" ")
                    self._caller.call_soon_threadsafe(self._said, worker, text)
                else:
                    self.beats += 1
                    self._caller.call_soon_threadsafe(self.seen.set)
                writer.write(self._answer.encode() + b"\n")
                await writer.drain()
        self._lines.discard(writer)
        writer.close()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def listen_in_range(serve: Callable[..., object], bind: str, ports: tuple[int, int]) -> asyncio.Server:
    """A server on the first free port of `ports` (both ends included; (0, 0) = any). OSError names the range."""
    for port in range(ports[0], ports[1] + 1):
        try:
            return await asyncio.start_server(serve, bind, port)  # type: ignore[arg-type]
        except OSError as error:
            last = error
    raise OSError(f"no free port in {ports[0]}-{ports[1]} on {bind}: {last}")
