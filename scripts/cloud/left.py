"""What a cluster of namespaces could leave on this machine: processes, namespaces, mounts, network links."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_KINDS = ("net", "mnt", "pid", "uts", "ipc")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Of the emulator: what descends from it, and the namespaces of these that are not this machine's own. Of the
    machine: its mounts and links, as this process sees them."""

    processes: frozenset[int]
    namespaces: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]

    def beyond(self, before: Seen) -> list[str]:
        """What is there that was not there before, in words; none of it is as it should be."""
        return [
            f"{kind} {item}"
            for kind, now, then in (
                ("process", self.processes, before.processes),
                ("namespace", self.namespaces, before.namespaces),
                ("mount", self.mounts, before.mounts),
                ("network link", self.links, before.links),
            )
            for item in sorted(map(str, now - then))
        ]

    def __str__(self) -> str:
        return (
            f"{len(self.processes)} processes in {len(self.namespaces)} namespaces of nodes, "
            f"{len(self.mounts)} mounts, {len(self.links)} network links"
        )


def look(emulator: int) -> Seen:
    """`emulator` is its pid."""
    family = _descendants(emulator)
    ours = set(_namespaces(os.getpid()))
    return Seen(
        processes=frozenset(family),
        namespaces=frozenset(name for pid in family for name in _namespaces(pid) if name not in ours),
        mounts=frozenset(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()),
        links=frozenset(os.listdir("/sys/class/net")),
    )


def _descendants(pid: int) -> set[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if stat[0] not in "ZX":
                parents.setdefault(int(stat[1]), []).append(int(entry.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def _namespaces(pid: int) -> list[str]:
    try:
        return [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in _KINDS]
    except OSError:
        return []
