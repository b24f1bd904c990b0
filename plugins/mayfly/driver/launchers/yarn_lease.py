"""The second net below an application: a lifetime that the ResourceManager itself enforces, renewed while this process
lives. The first one is the watchdog, and the faster."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from mayfly.driver.launchers.guarded import Guarded
from mayfly.errors import MayflyError
from mayfly.yarn.resource_manager import ResourceManager

logger = logging.getLogger(__name__)

UNPROVEN_SECONDS = 15.0
"""The lifetime of an application without a watchdog lasts so much longer than the grace."""
PROVEN_TIMES, PROVEN_MORE = 5.0, 300.0
"""The lifetime of one with a watchdog: so many graces, at most so many seconds more than one. YARN counts on while its
ResourceManager is down, and ends at its return what has not been renewed in time: it shall outlast a restart."""


class Lease:
    """`newest` is the application that is renewed, "" for none; `watched` whether its watchdog has been heard; `every`
    so many seconds, by default some times a grace. In a thread of its own: a busy event loop is no dead driver."""

    def __init__(
        self,
        *,
        manager: ResourceManager,
        grace: float,
        newest: Callable[[], str],
        watched: Callable[[], bool],
        every: float = 0.0,
    ) -> None:
        self._manager, self._grace, self._newest, self._watched = manager, grace, newest, watched
        self._every = every or max(2.0, grace / 4)
        self._closed = threading.Event()

    def start(self) -> None:
        self._closed.clear()
        threading.Thread(target=self._run, name="yarn-lease", daemon=True).start()

    def close(self) -> None:
        """Nothing is renewed any more, but for a call that is on its way."""
        self._closed.set()

    def renew(self) -> None:
        """Blocking; no answer is no matter, the next try is near."""
        if app_id := self._newest():
            with contextlib.suppress(MayflyError):
                self._manager.renew(app_id, self._seconds())

    def _seconds(self) -> float:
        more = UNPROVEN_SECONDS
        if self._watched():
            more = max(more, min(PROVEN_MORE, (PROVEN_TIMES - 1) * self._grace))
        return self._grace + more

    def _run(self) -> None:
        guarded = Guarded(logger, "renewing the application's lifetime")
        while not self._closed.wait(self._every):
            with guarded:
                self.renew()
