"""What exists: regions, image versions, machine types. Enough to refuse what does not, and to know a node's size.

From Google's public documentation, late 2025 to mid 2026; not complete, and no authority.
"""

from __future__ import annotations

import re

GIB = 2**30
_REGIONS = """
    africa-south1 asia-east1 asia-east2 asia-northeast1 asia-northeast2 asia-northeast3 asia-south1 asia-south2
    asia-southeast1 asia-southeast2 australia-southeast1 australia-southeast2 europe-central2 europe-north1
    europe-southwest1 europe-west1 europe-west2 europe-west3 europe-west4 europe-west6 europe-west8 europe-west9
    europe-west10 europe-west12 me-central1 me-central2 me-west1 northamerica-northeast1 northamerica-northeast2
    northamerica-south1 southamerica-east1 southamerica-west1 us-central1 us-east1 us-east4 us-east5 us-south1 us-west1
    us-west2 us-west3 us-west4"""
REGIONS = frozenset(_REGIONS.split())
_IMAGES = {
    "2.1": ("2.1.104", ("debian11", "rocky8", "ubuntu20")),
    "2.2": ("2.2.76", ("debian12", "rocky9", "ubuntu22", "ubuntu22-arm")),
    "2.3": ("2.3.24", ("debian12", "rocky9", "ubuntu22", "ubuntu22-arm", "ml-ubuntu22")),
    "3.0": ("3.0.8", ("debian13", "rocky9", "ubuntu24")),
}
_IMAGE = re.compile(r"(\d+\.\d+)(?:\.(\d+))?(?:-([a-z0-9-]+))?$")

_CORES = {
    "n1": (1, 2, 4, 8, 16, 32, 64, 96),
    "n2": (2, 4, 8, 16, 32, 48, 64, 80, 96, 128),
    "n2d": (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224),
    "n4": (2, 4, 8, 16, 32, 48, 64, 80),
    "e2": (2, 4, 8, 16, 32),
    "c2": (4, 8, 16, 30, 60),
    "c2d": (2, 4, 8, 16, 32, 56, 112),
    "c3": (4, 8, 22, 44, 88, 176),
    "c3d": (4, 8, 16, 30, 60, 90, 180, 360),
    "c4": (2, 4, 8, 16, 24, 32, 48, 96, 144, 192, 288),
    "c4a": (1, 2, 4, 8, 16, 32, 48, 64, 72),
    "t2d": (1, 2, 4, 8, 16, 32, 48, 60),
}
_GIB_PER_CORE = {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0}
_OTHER = {
    ("n1", "standard"): 3.75,
    ("n1", "highmem"): 6.5,
    ("n1", "highcpu"): 0.9,
    ("c2d", "highcpu"): 2.0,
    ("c3", "highcpu"): 2.0,
    ("c3d", "highcpu"): 59 / 30,
    ("c4", "highcpu"): 2.0,
    ("c4", "standard"): 3.75,
    ("c4", "highmem"): 7.75,
    ("c4a", "highcpu"): 2.0,
    ("n4", "highcpu"): 2.0,
}
_MACHINE = re.compile(r"([a-z]\d+[a-z]?)-(standard|highmem|highcpu)-(\d+)(-lssd)?$")


def image_version(given: str) -> str | None:
    """The full version that a given one stands for, such as 2.2 -> 2.2.76-debian12; None where there is none."""
    found = _IMAGE.match(given or "2.2")
    if not found or found.group(1) not in _IMAGES:
        return None
    newest, systems = _IMAGES[found.group(1)]
    system = found.group(3) or systems[0]
    if system == "debian":
        system = systems[0]
    if system not in systems:
        return None
    return f"{found.group(1)}.{found.group(2)}-{system}" if found.group(2) else f"{newest}-{system}"


def machine(name: str) -> tuple[int, int] | None:
    """(cores, bytes of memory) of a machine type by its short name; None where there is none."""
    found = _MACHINE.match(name)
    if not found:
        return None
    family, kind, cores = found.group(1), found.group(2), int(found.group(3))
    if cores not in _CORES.get(family, ()) or (family, kind) in {("c2", "highmem"), ("c2", "highcpu")}:
        return None
    if family == "t2d" and kind != "standard":
        return None
    if name == "n2-highmem-128":  # the one that does not follow its kind
        return cores, 864 * GIB
    return cores, int(cores * _OTHER.get((family, kind), _GIB_PER_CORE[kind]) * GIB)
