"""What goes into an environment: the job's requirements and Mayfly's own, the lock's header, the key. Pure.

A lock is `requirements.lock` beside the requirements file that it was made of. Its header says what it was made of, so
that plan can tell, without a network, whether it still says the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from mayfly.contract import FrozenTarget
from mayfly.errors import InputError

PLATFORM: Final = "x86_64-manylinux_2_28"
"""What nodes are: x86_64 Linux with glibc 2.28 (2018) or newer; uv's name for it."""
PACKER: Final = 1
"""Version of the packer: another number makes other keys, so that every environment is packed anew."""
RUNTIME: Final = (
    "dask[dataframe,distributed]>=2026.8",
    "bokeh>=3.1",
    "pyarrow>=19",
    "psutil>=6",
    "cryptography",
    "fsspec>=2025.3",
)
"""Mayfly's own needs on a cluster (driver, host and workers); the same ranges as in its requirements.txt."""
EXTRAS: Final = {
    "gs": ("gcsfs>=2025.3", "google-cloud-storage>=3"),
    "s3": ("s3fs>=2025.3",),
    "yarn": ("skein==0.8.2", 'setuptools>=77; python_version >= "3.12"'),
}
"""Further needs, by the target's launcher and by the scheme of its staging."""
CLIENTS: Final = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "adlfs"),
}
"""Scheme of data -> package without which nothing opens it. Not hdfs: there the node's Hadoop may do as well."""

_HEADER: Final = re.compile(r"^# inputs (?P<inputs>[0-9a-f]{64}) python (?P<python>3\.\d+) for (?P<extras>[a-z0-9,]+)$")


@dataclass(frozen=True, kw_only=True)
class Header:
    """The lock's own account of what it was made of. `python` is major.minor."""

    inputs: str
    python: str
    extras: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One requirement as the user wrote it, and where: `jobs/requirements.txt:3`."""

    text: str
    where: str


def needs_environment(target: FrozenTarget) -> bool:
    """Whether nodes of this target need a packed environment: workers or driver elsewhere, no interpreter named."""
    return (target.launcher == "yarn" or target.gcp is not None) and target.python is None


def extras_of(target: FrozenTarget) -> frozenset[str]:
    """Which of `EXTRAS` a target needs."""
    return frozenset({target.launcher, target.staging.partition("://")[0]}) & EXTRAS.keys()


def mayfly_needs(extras: Iterable[str]) -> tuple[str, ...]:
    """Mayfly's own requirements for these extras."""
    return (*RUNTIME, *(line for extra in sorted(extras) for line in EXTRAS[extra]))


def parse_lines(text: str, *, shown: str) -> tuple[list[Line], list[tuple[str, str]]]:
    """(requirements, files that it includes as pairs of option and name). InputError for what cannot travel.

    Comments and blank lines count for nothing. Of pip's options only `-r` and `-c` are known: addresses and passwords
    of package indexes belong into uv's own configuration, where no commit finds them.
    """
    lines: list[Line] = []
    included: list[tuple[str, str]] = []
    whole, begin = "", 1
    for number, raw in enumerate(text.splitlines(), 1):
        whole, begin = (f"{whole} {raw}", begin) if whole else (raw, number)
        if raw.endswith("\\"):
            whole = whole[:-1]
            continue
        line, whole = re.sub(r"(^|\s)#.*$", "", whole).strip(), ""
        where = f"{shown}:{begin}"
        if not line:
            continue
        option = re.fullmatch(r"(-r|--requirement|-c|--constraint)[ =]*(\S+)", line)
        if option:
            included.append(("-r" if "r" in option[1][:3] else "-c", option[2]))
        elif line.startswith("-"):
            hint = "set UV_INDEX, or [[index]] in a uv.toml" if "index" in line or "find" in line else "leave it out"
            raise InputError(f"{where}: the option {line.split()[0].split('=')[0]} cannot stand here; {hint}")
        else:
            lines.append(Line(text=_checked(line, where=where), where=where))
    return lines, included


def _checked(line: str, *, where: str) -> str:
    try:
        requirement = Requirement(line)
    except InvalidRequirement as error:
        if line.startswith((".", "/")) or "/" in line.split("@")[0]:
            raise InputError(
                f"{where}: {line!r} is a path; code of your own belongs into the job's folder, a package on an index"
            ) from error
        raise InputError(f"{where}: {line!r} is no requirement ({str(error).splitlines()[0]})") from error
    if requirement.url is not None and requirement.url.startswith("file:"):
        raise InputError(f"{where}: {line!r} names a file of one machine; put the package on an index")
    return line


def conflicts(asked: Sequence[Line], needed: Sequence[str], *, python: str) -> list[str]:
    """One sentence for each requirement of the job that no version can satisfy together with one of Mayfly's."""
    environment = {"python_version": python, "sys_platform": "linux", "platform_machine": "x86_64"}

    def counts(requirement: Requirement) -> bool:
        return requirement.marker is None or requirement.marker.evaluate(dict(environment))

    found = []
    ours = [own for own in map(Requirement, needed) if counts(own)]
    for line in asked:
        theirs = Requirement(line.text)
        if not counts(theirs):
            continue
        for own in ours:
            same = canonicalize_name(own.name) == canonicalize_name(theirs.name)
            if same and not satisfiable(own.specifier & theirs.specifier):
                ask, need = f"{theirs.name}{theirs.specifier}", f"{own.name}{own.specifier}"
                found.append(f"{line.where} asks {ask}, Mayfly needs {need}")
    return found


def satisfiable(specifiers: SpecifierSet) -> bool:
    """Whether some version could satisfy all. Tries each bound and its nearest neighbours; errs towards yes."""
    candidates = {"0", "99999"}
    for specifier in specifiers:
        if specifier.operator == "===":
            return True
        bound = Version(specifier.version.removesuffix(".*"))
        release = bound.release
        candidates |= {str(bound), f"{bound.public}.post99" if not bound.is_prerelease else str(bound)}
        candidates |= {".".join(map(str, (*release, 0, 1))), ".".join(map(str, (*release[:-1], release[-1] + 1)))}
        below = [*release]
        for place in range(len(below) - 1, -1, -1):
            if below[place]:
                below[place:] = [below[place] - 1, 99999]
                candidates.add(".".join(map(str, below)))
                break
    return any(specifiers.contains(candidate, prereleases=True) for candidate in candidates)


# ---------------------------------------------------------------- lock


def inputs_hash(texts: Iterable[str], *, extras: Iterable[str], python: str) -> str:
    """SHA-256 of all that decides what a lock says: requirements (job's and Mayfly's), Python, platform."""
    parts = [*texts, *mayfly_needs(extras), f"python {python}", PLATFORM]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def render_lock(body: str, header: Header) -> str:
    return (
        "# Made by `mayfly env build` of the requirements.txt beside it; not for editing. Commit it.\n"
        f"# inputs {header.inputs} python {header.python} for {','.join(sorted(header.extras)) or 'base'}\n"
        f"{_body(body)}\n"
    )


def parse_header(lock: str) -> Header | None:
    """None when the file has none: not made by `mayfly env build`."""
    for line in lock.splitlines()[:5]:
        match = _HEADER.match(line)
        if match:
            extras = frozenset(match["extras"].split(",")) - {"base"}
            return Header(inputs=match["inputs"], python=match["python"], extras=extras)
    return None


def key_of(lock: str, *, python: str) -> str:
    """Names an environment: 20 hex digits of lock, platform, Python and packer. Comments count for nothing."""
    parts = (_body(lock), PLATFORM, python, str(PACKER))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _body(lock: str) -> str:
    return "\n".join(line.rstrip() for line in lock.splitlines() if line.strip() and not line.startswith("#"))


def packages_of(lock: str) -> dict[str, str]:
    """Name -> version of everything locked."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.MULTILINE))


def lacking(places: Iterable[str], *, lock: str) -> list[tuple[str, str]]:
    """(place, package) for each input or output that nothing in this environment can open."""
    packages = {canonicalize_name(name) for name in packages_of(lock)}
    asked = [(place, CLIENTS.get(place.partition("://")[0], "")) for place in places if "://" in place]
    return [(place, package) for place, package in asked if package and package not in packages]


# ---------------------------------------------------------------- words

_RATES = {"file": 200e6}
_OBJECT_STORE_RATE = 20e6


def upload_seconds(size: int, *, staging: str) -> float:
    """A guess for people: 200 MB/s into a folder, 20 MB/s (160 Mbit/s, an office line) to an object store."""
    return size / _RATES.get(staging.partition("://")[0], _OBJECT_STORE_RATE)


def essential(output: str, *, at_most: int = 15) -> list[str]:
    """The lines of uv's error output that say why: without decoration, joined where uv broke them, and few."""
    lines: list[str] = []
    for raw in output.splitlines():
        text = re.sub(r"^[\s×╰─▶│├|]+", "", raw).strip()
        if not text or re.match(r"(warning|Resolved|Using|Downloading|Building|Prepared|Installed)\b", text):
            continue
        starts = re.match(r"(error|hint|cause|caused by|because)\b", text, re.IGNORECASE) or raw.lstrip().startswith(
            "×"
        )
        if starts or not lines:
            lines.append(text)
        else:
            lines[-1] += f" {text}"
    lines = [line if len(line) <= 600 else f"{line[:600]} ..." for line in lines]
    return [*lines[:at_most], f"... and {len(lines) - at_most} lines more"] if len(lines) > at_most else lines
