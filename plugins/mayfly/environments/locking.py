"""Resolving requirements into a lock: the only step that asks a package index what there is."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from mayfly.environments.requirements import (
    EXTRAS,
    PLATFORM,
    Header,
    conflicts,
    inputs_hash,
    mayfly_needs,
    parse_header,
    render_lock,
)
from mayfly.environments.sources import Locked, Source, is_fresh, read_lock
from mayfly.environments.uv import UvFailed, run_uv
from mayfly.errors import InputError


def lock(source: Source, *, extras: frozenset[str], python: str | None, upgrade: bool) -> tuple[Locked, bool]:
    """(the lock, whether it was made anew). A lock that still says what is asked for stays, unless `upgrade`.

    Versions that were locked stay while they can. What other targets needed stays in, so that one lock serves all.
    `python` (major.minor) None = the lock's, else `default_python()`. InputError when there is no solution.
    """
    old = read_lock(source)
    if old is not None:
        extras = extras | (old.header.extras & EXTRAS.keys())
        python = python or old.header.python
    python = python or default_python()
    if old is not None and not upgrade and python == old.header.python and is_fresh(source, old, extras=extras):
        return old, False
    header = Header(inputs=inputs_hash(source.texts, extras=extras, python=python), python=python, extras=extras)
    text = render_lock(_resolve(source, header, upgrade=upgrade), header)
    beside = source.lock.with_name(f".{source.lock.name}-{secrets.token_hex(4)}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, source.lock)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"cannot write {source.lock_shown}: {error.strerror}") from error
    return Locked(text=text, header=header), True


def default_python() -> str:
    """This interpreter's: what runs here today is what a job was tried with."""
    import sys

    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _resolve(source: Source, header: Header, *, upgrade: bool) -> str:
    needs = mayfly_needs(header.extras)
    clashing = conflicts(source.lines, needs, python=header.python)
    if clashing:
        raise InputError("\n".join([*clashing, "No environment can hold both: change the former."]))
    with tempfile.TemporaryDirectory(prefix="mayfly-lock-") as folder:
        ours = Path(folder) / "mayfly.txt"
        ours.write_text("\n".join(needs) + "\n")
        result = Path(folder) / "result.txt"
        # Locked versions are uv's preference, not its law; a file of another origin would only confuse it.
        if source.lock.exists() and parse_header(source.lock.read_text(encoding="utf-8", errors="replace")):
            result.write_bytes(source.lock.read_bytes())
        try:
            run_uv(
                *("pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"),
                *("--no-emit-index-url", "--no-emit-find-links", "--only-binary", ":all:"),
                *("--python-platform", PLATFORM, "--python-version", header.python),
                *(("--upgrade",) if upgrade else ()),
                *("--output-file", result, source.path, ours),
            )
        except UvFailed as error:
            raise InputError(
                f"{source.shown} cannot be resolved together with what Mayfly needs ({', '.join(needs)}) for Python "
                f"{header.python} on x86_64 Linux:\n{error}"
            ) from error
        return result.read_text(encoding="utf-8")
