"""Archives as folders: whole or not at all, also when two processes unpack at once or one is killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

from mayfly.contract import Environment
from mayfly.environments.archive import Corrupted, unpack
from mayfly.errors import BackendError
from mayfly.staging.stores import Store

KEEP_DAYS: Final = 14.0
"""An unpacked environment that nobody started for so long, and no process runs from, is removed."""


def whole_folder(final: Path, fill: Callable[[Path], None]) -> Path:
    """`final`, filled by `fill` beside it if it is not there yet. BackendError when the disk is full."""
    if final.is_dir():
        return final
    beside = final.with_name(f".new-{os.getpid()}-{time.monotonic_ns()}")
    try:
        beside.mkdir(parents=True)
        fill(beside)
        beside.rename(final)
    except OSError as error:
        if final.is_dir():  # somebody else was first
            return final
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(final.parent).free
            raise BackendError(
                f"no room to unpack in {final.parent} ({free / 1e6:.0f} MB free): {error}. Make room, or let "
                "MAYFLY_STATE_DIR name a folder on a larger disk"
            ) from error
        raise BackendError(f"cannot unpack in {final.parent}: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return final


def unpacked_environment(environment: Environment, *, store: Store, root: Path) -> Path:
    """The folder of an environment on this machine, unpacked once; `bin/python3` in it runs.

    BackendError when the archive is missing or is not the one that was planned.
    """
    name = environment.path.rpartition("/")[2].removesuffix(".tar.gz")
    final = root / name
    with _locked(root, name):
        folder = whole_folder(final, lambda beside: _fill(beside, environment, store=store))
        (root / f"{name}.used").touch()
    _prune(root)
    return folder


def _fill(folder: Path, environment: Environment, *, store: Store) -> None:
    where = f"{store.url}/{environment.path}"
    source = store.open(environment.path)
    if source is None:
        raise BackendError(f"the environment {where} is missing; clear the run to plan anew, which uploads it")
    try:
        with source:
            unpack(source, folder, sha256=environment.sha256)
    except Corrupted as error:
        key = environment.path.rpartition("/")[2].partition("-")[0]
        raise BackendError(
            f"the environment {where} is damaged ({error}); remove it with mayfly env rm {key} --target ..., and clear "
            "the run to plan anew, which uploads it again"
        ) from error
    if not (folder / "bin" / "python3").exists():
        raise BackendError(f"the environment {where} holds no bin/python3; it was not made by mayfly env build")


def _prune(root: Path) -> None:
    """Remove environments that are old and idle, and what a killed process left half unpacked."""
    now = time.time()
    for path in root.iterdir():
        with contextlib.suppress(OSError):
            if path.name.startswith(".new-") and now - path.stat().st_mtime > 86400:
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix == ".used" and now - path.stat().st_mtime > KEEP_DAYS * 86400:
                with _locked(root, path.stem):
                    if now - path.stat().st_mtime > KEEP_DAYS * 86400 and not _in_use(root / path.stem):
                        path.unlink()
                        shutil.rmtree(root / path.stem, ignore_errors=True)


def _in_use(folder: Path) -> bool:
    """Whether a process of ours runs from it; the time of use alone would not know a job of many days."""
    inside = f"{folder.resolve()}{os.sep}"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.exe().startswith(inside):
                return True
    return False


@contextlib.contextmanager
def _locked(root: Path, name: str) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / f".{name}.lock").open("w")
    except OSError as error:
        raise BackendError(f"cannot write {root}: {error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
