"""The supervisor's one loop: output of children, messages of the host, signals, and the end of children."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from collections.abc import Callable
from typing import Any

LONGEST_LINE = 64 << 10


class Lines:
    """Collects what a child writes and passes on blocks of whole lines."""

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        self._emit, self._rest = emit, b""

    def feed(self, data: bytes) -> None:
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            self._emit(self._rest + whole + newline)
            self._rest = rest
        else:
            self._rest += rest
        if len(self._rest) > LONGEST_LINE:  # no newline in sight: binary, or a progress bar
            self.flush()

    def flush(self) -> None:
        if self._rest:
            rest, self._rest = self._rest, b""
            self._emit(rest)


class Loop:
    """Sources are file descriptors or sockets. `asked_to_stop` is set by SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, wake_end = socket.socketpair()
        self._wake.setblocking(False)
        wake_end.setblocking(False)
        self._wake_end = wake_end
        self.asked_to_stop = ""
        signal.set_wakeup_fd(wake_end.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})  # see __main__
        self._selector.register(self._wake, selectors.EVENT_READ, self._drain_wake)

    def _stop(self, number: int, _frame: object) -> None:
        self.asked_to_stop = self.asked_to_stop or signal.Signals(number).name

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass

    def once(self, timeout: float) -> None:
        """Handle what is there; wait up to `timeout` seconds for something."""
        for key, _ in self._selector.select(max(0.0, timeout)):
            key.data()

    def read_lines(self, source: Any, lines: Lines, *, on_end: Callable[[], None] | None = None) -> None:
        """Feed `lines` from a non-blocking descriptor or socket until it ends."""
        os.set_blocking(source.fileno(), False)

        def ready() -> None:
            try:
                data = os.read(source.fileno(), 256 << 10)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                lines.feed(data)
                return
            lines.flush()
            self.drop(source)
            if on_end:
                on_end()

        self._selector.register(source, selectors.EVENT_READ, ready)

    def accept(self, listener: socket.socket, welcome: Callable[[socket.socket], None]) -> None:
        listener.setblocking(False)

        def ready() -> None:
            with contextlib.suppress(OSError):
                welcome(listener.accept()[0])

        self._selector.register(listener, selectors.EVENT_READ, ready)

    def drop(self, source: Any) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(source)
        source.close()


def reap_orphans(own: set[int]) -> None:
    """Collect ended descendants that were left to us; `own` children are collected by their `Popen`."""
    if not hasattr(os, "waitid"):  # macOS: no subreaper either, so there are no orphans of ours
        return
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in own:
            return  # one of ours hides the rest until its Popen has been asked; there is a next time
        with contextlib.suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)
