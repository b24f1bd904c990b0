"""Signs of the orchestrator, read by a thread of their own: a store that hangs must not stop the watch."""

from __future__ import annotations

import threading
import time

from mayfly.contract import Closing
from mayfly.driver.watch import LeaseWatch
from mayfly.errors import MayflyError
from mayfly.staging.rundir import AttemptDir


class Orchestrator:
    """Looks at closing.json, cancel.json and lease.json every `interval` seconds.

    `closing` and `cancel` (who and why; empty = no) and `lease_stale` may be read any time.

    `looked` is set after the first look, whatever it brought.
    """

    def __init__(self, attempt: AttemptDir, *, ttl: float, interval: float) -> None:
        self._attempt, self._interval = attempt, interval
        self._lease = LeaseWatch(ttl=ttl, longest_gap=3 * interval)
        self.closing = self.cancel = ""
        self.looked = threading.Event()
        threading.Thread(target=self._work, name="lease", daemon=True).start()

    @property
    def lease_stale(self) -> bool:
        return self._lease.stale

    @property
    def lease_ttl(self) -> float:
        return self._lease.ttl

    def _work(self) -> None:
        while not (self.closing or self.cancel):
            try:
                self.closing = _who(self._attempt.rundir.closing(), or_else="the cluster is being deleted")
                self.cancel = _who(self._attempt.read(Closing, "cancel.json"), or_else="no reason given")
                lease = self._attempt.lease()
            except MayflyError:
                self._lease.unreadable()
            except Exception:  # a store's own surprise is no answer either
                self._lease.unreadable()
            else:
                if lease is None:
                    self._lease.read(time.monotonic(), seq=None)
                else:
                    self._lease.read(time.monotonic(), seq=lease.seq, ttl=lease.ttl_s)
            self.looked.set()
            time.sleep(self._interval)


def _who(asked: Closing | None, *, or_else: str) -> str:
    return "" if asked is None else f"{asked.by}: {asked.reason or or_else}"
