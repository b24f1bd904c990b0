"""The machine types that Dataproc clusters are made of. Pure data.

Source: the pages general-purpose-machines, compute-optimized-machines and disks/local-ssd of Google's documentation, in
November 2026; nothing of it was asked of Google. Shared-core types and those with less than 2 vCPUs are left out:
Dataproc takes none of them. Memory is in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GIB: Final = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine type. `local_ssds`: how many it may have, ascending; empty = none at all."""

    name: str
    cores: int
    memory: int
    local_ssds: tuple[int, ...] = ()

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]

    @property
    def weight(self) -> float:
        """A stand-in for its price within a family: a vCPU costs about as much as 7.5 GiB of memory (list prices of n2,
        us-central1: $0.0316 a vCPU, $0.0042 a GiB)."""
        return 7.5 * self.cores + self.memory / GIB


_UP_TO = tuple[tuple[int, tuple[int, ...]], ...]
_MANY = (1, 2, 4, 8, 16, 24)
_SSDS: Final[dict[str, _UP_TO]] = {
    "n2": ((10, _MANY), (20, _MANY[1:]), (40, _MANY[2:]), (80, _MANY[3:]), (128, _MANY[4:])),
    "n2d": ((16, _MANY), (48, _MANY[1:]), (80, _MANY[2:]), (224, _MANY[3:])),
    "n1": ((96, (1, 2, 3, 4, 5, 6, 7, 8, 16, 24)),),
    "e2": (),
    "c2": ((8, (1, 2, 4, 8)), (16, (2, 4, 8)), (30, (4, 8)), (60, (8,))),
    "c2d": ((16, (1, 2, 4, 8)), (32, (2, 4, 8)), (56, (4, 8)), (112, (8,))),
    "c3": (),  # its types with SSDs are types of their own (-lssd)
}
"""By family: up to so many vCPUs, these numbers of local SSDs."""
_N2 = (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)
_KINDS: Final[dict[str, tuple[float, tuple[int, ...]]]] = {
    "n2-standard": (4, _N2),
    "n2-highmem": (8, _N2),
    "n2-highcpu": (1, _N2[:-1]),
    "n2d-standard": (4, (*_N2, 224)),
    "n2d-highmem": (8, _N2[:-1]),
    "n2d-highcpu": (1, (*_N2, 224)),
    "n1-standard": (3.75, (2, 4, 8, 16, 32, 64, 96)),
    "n1-highmem": (6.5, (2, 4, 8, 16, 32, 64, 96)),
    "n1-highcpu": (0.9, (4, 8, 16, 32, 64, 96)),
    "e2-standard": (4, (2, 4, 8, 16, 32)),
    "e2-highmem": (8, (2, 4, 8, 16)),
    "e2-highcpu": (1, (4, 8, 16, 32)),
    "c2-standard": (4, (4, 8, 16, 30, 60)),
    "c2d-standard": (4, (2, 4, 8, 16, 32, 56, 112)),
    "c2d-highmem": (8, (2, 4, 8, 16, 32, 56, 112)),
    "c2d-highcpu": (2, (2, 4, 8, 16, 32, 56, 112)),
    "c3-standard": (4, (4, 8, 22, 44, 88, 176)),
    "c3-highmem": (8, (4, 8, 22, 44, 88, 176)),
    "c3-highcpu": (2, (4, 8, 22, 44, 88, 176)),
}
"""By kind: GiB a vCPU, and the numbers of vCPUs."""
_ODD: Final = {"n2-highmem-128": 864}
"""GiB of types that do not follow their kind."""


def _ssds(family: str, cores: int) -> tuple[int, ...]:
    return next((counts for most, counts in _SSDS[family] if cores <= most), ())


MACHINES: Final[tuple[Machine, ...]] = tuple(
    Machine(
        name=f"{kind}-{cores}",
        cores=cores,
        memory=int(_ODD.get(f"{kind}-{cores}", per_core * cores) * GIB),
        local_ssds=_ssds(kind.partition("-")[0], cores),
    )
    for kind, (per_core, sizes) in _KINDS.items()
    for cores in sizes
)
FAMILIES: Final[tuple[str, ...]] = tuple(_SSDS)
_DISKS: Final = ("pd-standard", "pd-balanced", "pd-ssd")


def boot_disks(family: str) -> tuple[str, ...]:
    """The types of boot disk that machines of a family take (disks/persistent-disks and disks/hyperdisks of the same
    documentation; only types that Dataproc takes, too)."""
    return (*_DISKS[1:], "hyperdisk-balanced") if family == "c3" else _DISKS


def of_families(families: tuple[str, ...]) -> tuple[tuple[Machine, ...], ...]:
    """The machine types of each of these families, in the families' order, cheapest first."""
    return tuple(
        tuple(sorted((m for m in MACHINES if m.family == family), key=lambda m: (m.weight, m.name)))
        for family in families
    )
