"""Signs of the orchestrator, read by a thread of their own: a store that hangs must not stop the watch."""

from __future__ import annotations

import threading
import time

from mayfly.driver.watch import LeaseWatch
from mayfly.errors import MayflyError
from mayfly.rundir import AttemptDir


class Orchestrator:
    """Looks at closing.json and lease.json every `interval` seconds. `closing` and `lease_stale` may be read any time.

    `looked` is set after the first look, whatever it brought.
    """

    def __init__(self, attempt: AttemptDir, *, ttl: float, interval: float) -> None:
        self._attempt, self._interval = attempt, interval
        self._lease = LeaseWatch(ttl=ttl, longest_gap=3 * interval)
        self.closing = ""
        self.looked = threading.Event()
        threading.Thread(target=self._work, name="lease", daemon=True).start()

    @property
    def lease_stale(self) -> bool:
        return self._lease.stale

    @property
    def lease_ttl(self) -> float:
        return self._lease.ttl

    def _work(self) -> None:
        while not self.closing:
            try:
                closing = self._attempt.rundir.closing()
                if closing is not None:
                    self.closing = f"{closing.by}: {closing.reason or 'the cluster is being deleted'}"
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
