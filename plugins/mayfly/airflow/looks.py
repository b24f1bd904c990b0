"""Blocking looks beside an event loop that must never block: a few threads for each store, each look with a deadline.

Not concurrent.futures: its threads are waited for when the process ends, so that one hanging read would keep a
triggerer from stopping. These are daemons. A store that hangs holds up its own threads only.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

THREADS = 4
"""For each store. Few on purpose: threads that all want the interpreter's lock make the event loop wait for it."""


class LookTooLong(Exception):
    """The look has not come back in time; it may still."""


class Looks:
    """A bounded number of daemon threads that do one look at a time, in the order in which they were asked."""

    def __init__(self, threads: int = THREADS) -> None:
        self._asked: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"look-{i}") for i in range(threads)]
        for thread in self._threads:
            thread.start()

    async def do(self, look: Callable[[], Any], *, seconds: float) -> Any:
        """What `look` returns or raises; LookTooLong after `seconds`. One that has not begun by then never will."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.put((answer, look))
        try:
            return await asyncio.wait_for(answer, seconds)
        except TimeoutError:
            raise LookTooLong(f"no answer within {seconds:.0f} s") from None

    def _work(self) -> None:
        while True:
            answer, look = self._asked.get()
            if answer.done():  # nobody waits any more
                continue
            try:
                result, error = look(), None
            except BaseException as raised:
                result, error = None, raised
            try:
                answer.get_loop().call_soon_threadsafe(_settle, answer, result, error)
            except RuntimeError:  # the loop was closed meanwhile
                continue
            del answer, look, result, error


def _settle(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


@cache
def looks_at(store: str) -> Looks:
    """The threads for one store, made at the first look."""
    return Looks()
