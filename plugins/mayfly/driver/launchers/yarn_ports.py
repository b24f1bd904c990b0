"""Where the nodes find this machine: its address, and ports of the target's ranges."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from mayfly.contract import FailureClass
from mayfly.driver.launchers.base import LaunchError

Started = TypeVar("Started")


def address_towards(hosts: tuple[tuple[str, int], ...]) -> str:
    """This machine's IPv4 address in the direction of the ResourceManager; nothing is sent. LaunchError when no host
    name can be resolved."""
    problem: OSError | None = None
    for host, port in hosts:
        try:
            found = socket.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
            family, kind, _, _, place = found[0]
            with socket.socket(family, kind) as probe:
                probe.connect(place)
                return str(probe.getsockname()[0])
        except OSError as error:
            problem = error
    names = ", ".join(host for host, _ in hosts)
    raise LaunchError(
        FailureClass.NETWORK,
        f"this machine has no route to the ResourceManager ({names}: {problem}); set `yarn.address` of the target to "
        "the address at which containers reach it",
    )


def is_local(address: str) -> bool:
    """Whether one can listen on it; a name, or an address before a NAT, is served on all interfaces."""
    with contextlib.suppress(ValueError, OSError):
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with socket.socket(family) as probe:
            probe.bind((address, 0))
            return True
    return False


def free_port(bind: str, ports: tuple[int, int], what: str) -> int:
    """The first free port of the range, 0 for (0, 0). LaunchError names the range."""
    for port in _free_ports(bind, ports):
        return port
    raise _none_free(bind, ports, what)


async def on_free_port(
    start: Callable[[int], Awaitable[Started]], *, bind: str, ports: tuple[int, int], what: str
) -> Started:
    """What `start` has started on a port of the range. One that was free may be another driver's a moment later: then
    it is the next one. LaunchError names the range."""
    for port in _free_ports(bind, ports):
        try:
            return await start(port)
        except (OSError, RuntimeError) as error:
            if not _taken(error):
                raise
    raise _none_free(bind, ports, what)


def _free_ports(bind: str, ports: tuple[int, int]) -> Iterator[int]:
    for port in range(ports[0], ports[1] + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((bind, port))
            except OSError:
                continue
        yield port


def _taken(error: BaseException | None) -> bool:
    """Whether it is for a port that is not free: Dask wraps what the system says."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return True
        error = error.__cause__
    return False


def _none_free(bind: str, ports: tuple[int, int], what: str) -> LaunchError:
    return LaunchError(
        FailureClass.NETWORK,
        f"no free port for the {what} in {ports[0]}-{ports[1]} on {bind}: widen `yarn.ports.{what}` of the target, or "
        "wait until other jobs on this machine have ended",
    )
