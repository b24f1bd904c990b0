"""Everything the supervisor writes to the store goes through one thread: a slow, full or dead store delays nothing.

Two kinds of write: *latest* (status.json: only the newest matters, a failed write is forgotten) and *ordered*
(segments, logs, the record: tried again until they are there, in order). What waits is bounded; `room()` tells the
producer when to hold back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from mayfly.errors import MayflyError
from mayfly.staging.stores import Store

MAX_WAITING = 8 << 20
"""Bytes of ordered writes that may wait."""


@dataclass(frozen=True, kw_only=True)
class Write:
    """One whole object. `group`: when one write of a group is given up, the rest of the group is, too (a reader of
    numbered segments stops at the first gap anyway). `once` = create-if-absent."""

    path: str
    data: bytes
    group: str = ""
    once: bool = False


class Writer:
    """The thread and its queue. `finish` is the only call that waits."""

    def __init__(self, store: Store, *, first_delay: float = 0.5, longest_delay: float = 5.0) -> None:
        self._store = store
        self._first_delay, self._longest_delay = first_delay, longest_delay
        self._changed = threading.Condition()
        self._ordered: deque[Write] = deque()
        self._waiting = 0
        self._latest: dict[str, bytes] = {}
        self._probe: Write | None = None
        """The newest of the latest: small, and may be written again at any time."""
        self._finishing = False
        self._hopeful_until = 0.0
        self._given_up: set[str] = set()
        self.problem = ""
        """The last error, empty when the last write succeeded."""
        self._thread = threading.Thread(target=self._work, name="store writer", daemon=True)
        self._thread.start()

    def latest(self, path: str, data: bytes) -> None:
        with self._changed:
            self._latest[path] = data
            self._changed.notify()

    def ordered(self, write: Write) -> None:
        with self._changed:
            self._ordered.append(write)
            self._waiting += len(write.data)
            self._changed.notify()

    def room(self) -> bool:
        return self._waiting < MAX_WAITING

    def finish(self, last: Write, *, timeout: float) -> bool:
        """Write what waits, then `last`; False when `last` is not there after `timeout` seconds.

        What fails twice now is left out where the store takes something small, so that a full disk still gets the
        record. A store that takes nothing is waited for, in its order, for half of the time: it may heal."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._finishing = True
            self._hopeful_until = deadline - timeout / 2
            self._ordered.append(last)
            self._changed.notify()
            while self._ordered or self._latest:
                left = deadline - time.monotonic()
                if left <= 0:
                    return last not in self._ordered
                self._changed.wait(left)
        return last.path not in self._given_up

    def _work(self) -> None:
        delay = self._first_delay
        failures = 0
        while True:
            with self._changed:
                while not self._ordered and not self._latest:
                    self._changed.wait()
                latest, self._latest = self._latest, {}
                head = self._ordered[0] if self._ordered else None
            for path, data in latest.items():
                self._probe = Write(path=path, data=data)
                self._try(self._probe)
            if head is None:
                with self._changed:
                    self._changed.notify_all()
                continue
            done = self._try(head)
            failures = 0 if done else failures + 1
            is_last = self._finishing and len(self._ordered) == 1
            left_out = not done and self._finishing and not is_last and failures >= 2 and self._takes_others()
            with self._changed:
                if done or left_out:
                    self._drop_head(head, written=done)
                    delay, failures = self._first_delay, 0
                    self._changed.notify_all()
                else:
                    self._changed.wait(0.2 if self._finishing else delay)
                    delay = min(2 * delay, self._longest_delay)

    def _takes_others(self) -> bool:
        if self._probe is None or time.monotonic() > self._hopeful_until:
            return True
        problem = self.problem
        taken = self._try(self._probe)
        self.problem = problem
        return taken

    def _drop_head(self, head: Write, *, written: bool) -> None:
        gone = [head]
        if not written:
            self._given_up.add(head.path)
            gone += [write for write in self._ordered if head.group and write.group == head.group and write is not head]
        for write in gone:
            self._ordered.remove(write)
            self._waiting -= len(write.data)

    def _try(self, write: Write) -> bool:
        try:
            if write.once:
                self._store.create(write.path, write.data)
            else:
                self._store.put(write.path, write.data)
        except MayflyError as error:
            self.problem = str(error)
            return False
        except Exception as error:  # a store's own surprise must not end the only writer
            self.problem = repr(error)
            return False
        self.problem = ""
        return True
