"""Network namespaces from outside: sockets in them, links between them."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


class FarmError(OSError):
    """A farm or a node could not be made or entered."""


def within_network(pid: int, act: Callable[[], T]) -> T:
    """Run `act` in the network namespace of a process: in a thread made for it, since setns holds for the thread, and
    one that could not come back must not live on. A socket stays in the network in which it was made."""
    result: list[T] = []
    error: list[BaseException] = []

    def thread() -> None:
        try:
            with open(f"/proc/{pid}/ns/net") as namespace:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")
            result.append(act())
        except BaseException as caught:
            error.append(caught)

    runner = threading.Thread(target=thread, daemon=True)
    runner.start()
    runner.join()
    if error:
        raise error[0]
    return result[0]


def listener(address: str, port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen(128)
    return made


def ip(pid: int, *commands: str) -> None:
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "--", "ip", "-batch", "-"], input="\n".join(commands), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise FarmError(f"`ip {'; '.join(commands)}`: {done.stderr.strip()}")
