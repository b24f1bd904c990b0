"""Nodes without machines: Linux namespaces with an overlay of this host's root. Needs root, util-linux and iproute2.

A `Farm` is one cluster: a process that is PID 1 of its own network, mount and PID namespaces, with a bridge. Each
`Node` below it has its own network, mount, PID, UTS and IPC namespaces, host name, address and root. Nothing of it is
named on the host: no link, mount or namespace survives the farm's PID 1, and that ends when its stdin does, that is,
with the process that made it, however that died. The kernel then kills whatever runs in a node.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

from tests.emulators.dataproc.nodes.network import FarmError, ip, listener, within_network

T = TypeVar("T")

GATEWAY = "10.77.0.1"
METADATA = "169.254.169.254"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NETWORK = "10.77"
_READY_SECONDS = 240.0
_FARM, _NODE = (Path(__file__).with_name(name).read_text() for name in ("farm.sh", "node.sh"))
# So that a test session finds what it left: nothing, since nodes end with their maker, but who knows.
_MARKS = {key: value for key, value in os.environ.items() if key in ("MAYFLY_TEST_SESSION", "PYTEST_CURRENT_TEST")}


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A file or folder of this host that nodes see, read-only unless `writable`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file (or with `content` None a folder) to be put into a node."""

    content: str | bytes | None
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    """uid, gid."""


@dataclass
class Node:
    name: str
    address: str
    pid: int
    """Of its init, as this process sees it."""
    _starter: subprocess.Popen[bytes] = field(repr=False)
    _pidfd: int = field(repr=False)

    @property
    def alive(self) -> bool:
        return self._starter.poll() is None

    def enter(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, user: tuple[int, int] = (0, 0)
    ) -> list[str]:
        """The command of this host that runs `argv` in the node with exactly this environment (and a PATH)."""
        if not self.alive:
            raise FarmError(f"{self.name} is gone")
        ids = ["-S", str(user[0]), "-G", str(user[1])] if user != (0, 0) else []
        given = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"} | dict(env or {})
        inside = ["/usr/bin/env", "-i", *(f"{key}={value}" for key, value in given.items()), *argv]
        return ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-r", "-w", *ids, "--", *inside]

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, user: tuple[int, int] = (0, 0), given: bytes = b"",
        seconds: float = 240.0,
    ) -> str:  # fmt: skip
        """What a short command printed; FarmError when it failed."""
        done = subprocess.run(
            self.enter(argv, env=env, user=user), input=given, capture_output=True, timeout=seconds, check=False
        )
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()[-1000:]
            raise FarmError(f"{self.name}: `{' '.join(argv)[:200]}` ended with {done.returncode}: {said}")
        return done.stdout.decode(errors="replace")

    def start(
        self, argv: Sequence[str], *, output: Path | IO[bytes], env: Mapping[str, str] | None = None,
        user: tuple[int, int] = (0, 0), cwd: str = "/",
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        """A long-running command in a session of its own; `output` is a file of this host. Its exit code is the
        command's, and it is killed with the node."""
        changed = ["/bin/sh", "-c", 'cd "$0" && exec setsid -w "$@"', cwd, *argv]
        with open(output, "ab") if isinstance(output, Path) else os.fdopen(os.dup(output.fileno()), "ab") as sink:
            return subprocess.Popen(
                self.enter(changed, env=env, user=user), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True,
            )  # fmt: skip

    def put(self, entries: Mapping[str, Entry]) -> None:
        """Write files (absolute path -> entry) in one go, by a tar that runs inside: links of the node's root lead to
        where the node sees them, not to this host's files."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for path, entry in entries.items():
                info = tarfile.TarInfo(path.lstrip("/"))
                info.mode, (info.uid, info.gid) = entry.mode, entry.owner
                info.mtime = int(time.time())
                if entry.content is None:
                    info.type = tarfile.DIRTYPE
                    tar.addfile(info)
                    continue
                data = entry.content.encode() if isinstance(entry.content, str) else entry.content
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        self.run("tar", "-x", "-C", "/", "--numeric-owner", "-p", given=packed.getvalue())

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def within(self, act: Callable[[], T]) -> T:
        """What `act` returns in a thread of this process that is in the node's network: sockets stay there."""
        return within_network(self.pid, act)

    def listen(self, address: str, port: int) -> socket.socket:
        return self.within(lambda: listener(address, port))

    def kill(self) -> None:
        """As if the power failed: nothing in it gets a word, and its link is gone."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.close()

    def close(self) -> None:
        """Forget a node whose farm has ended; idempotent."""
        self._starter.wait(240)
        if self._starter.stdin and not self._starter.stdin.closed:
            _close(self._starter)
            os.close(self._pidfd)


class Farm:
    """The namespaces of one cluster; `end()` removes them with all nodes."""

    def __init__(self) -> None:
        self._starter = subprocess.Popen(
            ["unshare", "-n", "-m", "-p", "-f", "--kill-child=KILL", "--propagation", "private", "bash", "-c", _FARM],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=_MARKS | {"PATH": PATH, "GATEWAY": GATEWAY, "METADATA": METADATA},
            start_new_session=True,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._given = 0
        try:
            _await_ready(self._starter, "the farm")
            (self.pid,) = _children(self._starter.pid)
        except BaseException:
            self.end()
            raise

    def listen(self, address: str, port: int) -> socket.socket:
        """A listening socket on the bridge (GATEWAY, METADATA)."""
        return within_network(self.pid, lambda: listener(address, port))

    def address(self) -> str:
        """The next free address of the cluster's network."""
        with self._lock:
            self._given += 1
            return f"{_NETWORK}.{self._given // 200}.{10 + self._given % 200}"

    def node(self, name: str, address: str, *, binds: Sequence[Bind] = (), hidden: Sequence[Path] = ()) -> Node:
        """Boot a node. `hidden`: folders of this host that are empty there; binds may lie in them."""
        env = _MARKS | {
            "PATH": PATH,
            "NODE": name,
            "HIDDEN": " ".join(str(path).lstrip("/") for path in hidden),
            "BINDS": "\n".join(f"{b.source}\t{b.target.lstrip('/')}\t{'rw' if b.writable else 'ro'}" for b in binds),
        }
        starter = subprocess.Popen(
            ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "--",
             "unshare", "-n", "-u", "-i", "-m", "-p", "-f", "--kill-child=KILL", "--propagation", "private",
             "bash", "-c", _NODE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, start_new_session=True,
        )  # fmt: skip
        try:
            _await_ready(starter, name)
            pid = starter.pid
            for _ in ("unshare", "bash"):
                (pid,) = _children(pid)
            node = Node(name, address, pid, starter, os.pidfd_open(pid))
        except BaseException:
            starter.kill()
            starter.wait()
            _close(starter)
            raise
        # The hardware address follows from the other, as on Compute Engine: a node that comes back is known at once.
        mac = ":".join(f"{int(part):02x}" for part in ("66", "1", *address.split(".")))
        link = _link(address)
        ip(
            self.pid,
            f"link add {link} type veth peer name eth0 address {mac} netns {pid}",
            f"link set {link} master br0 up",
        )
        ip(
            pid,
            "link set lo up",
            f"addr add {address}/16 dev eth0",
            "link set eth0 up",
            f"route add default via {GATEWAY}",
        )
        return node

    def link(self, node: Node, up: bool) -> None:
        """Cut a node off, or connect it again: as when a switch fails, nobody is told."""
        ip(self.pid, f"link set {_link(node.address)} {'up' if up else 'down'}")

    def end(self) -> None:
        """SIGKILL for all; returns when the namespaces' processes are gone. Idempotent."""
        for pid in _children(self._starter.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self._starter.poll() is None:
            try:
                self._starter.wait(240)
            except subprocess.TimeoutExpired:
                self._starter.kill()
                self._starter.wait()
        _close(self._starter)


def _await_ready(starter: subprocess.Popen[bytes], what: str) -> None:
    assert starter.stdout is not None and starter.stderr is not None
    watch = threading.Timer(_READY_SECONDS, starter.kill)
    watch.start()
    try:
        line = starter.stdout.readline()
    finally:
        watch.cancel()
    if line.strip() != b"ready":
        starter.kill()
        said = starter.stderr.read().decode(errors="replace").strip()
        raise FarmError(f"{what} could not be made: {said or f'not ready after {_READY_SECONDS:g} s'}")
    starter.stdout.close()


def _close(starter: subprocess.Popen[bytes]) -> None:
    for pipe in (starter.stdin, starter.stdout, starter.stderr):
        if pipe:
            pipe.close()


def _link(address: str) -> str:
    """The farm's end of a node's link."""
    return "v" + "-".join(address.split(".")[2:])


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
