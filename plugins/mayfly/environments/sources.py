"""Which requirements file a job has, and what its lock says. Reads files, asks nobody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mayfly.environments.requirements import (
    Header,
    Line,
    inputs_hash,
    key_of,
    parse_header,
    parse_lines,
)
from mayfly.errors import InputError

REQUIREMENTS: Final = "requirements.txt"
LOCK: Final = "requirements.lock"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One requirements file of a project, with all that it includes."""

    path: Path
    shown: str
    """As the user knows it: `jobs/trips/requirements.txt`."""
    lines: tuple[Line, ...]
    """Requirements; not those of constraint files."""
    texts: tuple[str, ...]
    """All that decides what is locked, without comments."""

    @property
    def lock(self) -> Path:
        return self.path.with_name(LOCK)

    @property
    def lock_shown(self) -> str:
        return self.shown.removesuffix(REQUIREMENTS) + LOCK


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A lock file: its text, its header, and the key of the environment that it describes."""

    text: str
    header: Header

    @property
    def key(self) -> str:
        return key_of(self.text, python=self.header.python)


def source_of(home: Path, job: str | None) -> Source:
    """The job's own requirements, else the project's (`jobs/requirements.txt`). InputError when there are none, or
    when a line of them cannot be used."""
    shared = Path("jobs") / REQUIREMENTS
    candidates = [Path("jobs") / job / REQUIREMENTS, shared] if job else [shared]
    for candidate in candidates:
        if (home / candidate).exists():
            return read_source(home / candidate, shown=candidate.as_posix())
    asked = " and ".join(candidate.as_posix() for candidate in candidates)
    raise InputError(
        f"there is no {asked}: write what your scripts import beyond dask, pandas and pyarrow into {shared.as_posix()} "
        "(it may be empty)"
    )


def sources(home: Path, jobs: Iterable[str]) -> dict[str, Source]:
    """All requirements files of these jobs, by what they are called, each once."""
    found: dict[str, Source] = {}
    for job in jobs:
        source = source_of(home, job)
        found[source.shown] = source
    return found


def read_source(path: Path, *, shown: str) -> Source:
    lines: list[Line] = []
    texts: list[str] = []
    waiting, seen = [(path, shown, "-r")], {path.resolve()}
    while waiting:
        file, name, option = waiting.pop(0)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise InputError(f"{name} cannot be read: {reason}") from error
        found, included = parse_lines(text, shown=name)
        texts += [f"{option} {line.text}" for line in found]
        if option == "-r":
            lines += found
        for kind, other in included:
            target = file.parent / other
            if target.resolve() not in seen:
                seen.add(target.resolve())
                waiting.append((target, (Path(name).parent / other).as_posix(), "-c" if option == "-c" else kind))
    return Source(path=path, shown=shown, lines=tuple(lines), texts=tuple(texts))


def read_lock(source: Source) -> Locked | None:
    """None when there is no lock, or one that `mayfly env build` did not make."""
    try:
        text = source.lock.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    header = parse_header(text)
    return Locked(text=text, header=header) if header else None


def is_fresh(source: Source, locked: Locked, *, extras: frozenset[str]) -> bool:
    """Whether the lock still says what its requirements ask for, and covers these extras."""
    header = locked.header
    if not extras <= header.extras:
        return False
    return header.inputs == inputs_hash(source.texts, extras=header.extras, python=header.python)
