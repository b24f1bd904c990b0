"""Before the job runs: does every worker see what the script sees? Each check names who could not do what.

`report`, `unreadable` and `unwritable` run on the host and on every worker, so they import nothing heavy at the top.
"""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import pwd
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("dask", "distributed", "cloudpickle", "msgpack", "tornado", "toolz", "numpy", "pandas", "pyarrow", "lz4")
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci"})
"""Protocols of fsspec's that know buckets and keys, and no folders."""
LONGEST_PROBLEM = 400
"""Characters of what a client says. Some list each place at which they have looked for a library."""


class PreflightError(Exception):
    """`kind`: input, output, version or script."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def report() -> dict[str, Any]:
    """Versions and identity of this process. Read from the installed metadata: importing pandas takes a second."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"versions": versions, "who": who()}


def who() -> str:
    """This process's user and machine, e.g. "user yarn (uid 105) on node-3"."""
    try:
        # Not getpass: it believes $USER, and a YARN container carries that of who has submitted.
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a uid without a name
        name = "?"
    return f"user {name} (uid {os.getuid()}) on {socket.gethostname()}"


def compare_versions(here: Mapping[str, str], there: Mapping[str, Mapping[str, str]]) -> str:
    """What differs, one line a package; empty when all is equal. `there`: worker -> versions."""
    lines = []
    for package in sorted({*here, *(name for versions in there.values() for name in versions)}):
        mine = here.get(package, "absent")
        others = {worker: versions.get(package, "absent") for worker, versions in there.items()}
        different = {worker: version for worker, version in others.items() if version != mine}
        if different:
            listed = ", ".join(f"{worker} has {version}" for worker, version in sorted(different.items())[:5])
            lines.append(f"{package}: script and scheduler have {mine}, {listed}")
    return "\n".join(lines)


def local_path(location: str) -> str | None:
    """The path of a local location, None for a URL of another kind. "~" is the user's home."""
    if location.startswith("file://"):
        return location.removeprefix("file://")
    if "://" in location:
        return None
    return os.path.expanduser(location)


def unreadable(inputs: Mapping[str, str]) -> dict[str, str]:
    """Name -> problem of every input that this process cannot read."""
    problems = {}
    for name, location in inputs.items():
        try:
            problem = _read_problem(location)
        except Exception as error:
            problem = _words(error, location)
        if problem:
            problems[name] = problem
    return problems


def _read_problem(location: str) -> str:
    path = local_path(location)
    if path is not None:
        found = sorted(glob.glob(path)) if glob.has_magic(path) and not os.path.exists(path) else [path]
        if not found:
            return "no file matches"
        try:
            os.stat(found[0])  # `exists` would not tell a closed folder from an absent file
        except (FileNotFoundError, NotADirectoryError):
            return "does not exist"
        if os.path.isdir(found[0]):
            os.listdir(found[0])
        else:
            with open(found[0], "rb") as file:
                file.read(1)
        return ""
    import fsspec

    filesystem, place = fsspec.core.url_to_fs(location)
    if glob.has_magic(place):
        return "" if filesystem.glob(place) else _nothing_matches(filesystem, place)
    # Not `exists` and `isfile`: for some clients whatever goes wrong is a no.
    try:
        found = filesystem.info(place)
    except FileNotFoundError as error:
        return _absent(filesystem, place, error)
    if found["type"] == "file":
        filesystem.read_block(place, 0, 1)
    return ""


def _nothing_matches(filesystem: Any, place: str) -> str:
    """Many clients find nothing where they may not look, or where nobody answers: asked for the folder they say so."""
    folder = place[: place.index(next(letter for letter in place if letter in "*?["))].rpartition("/")[0]
    try:
        filesystem.info(folder or "/")
    except FileNotFoundError as error:
        bucket = "the bucket " if _has_buckets(filesystem) and "/" not in folder.strip("/") else ""
        return f"no file matches: {bucket}{folder or '/'} {_absent(filesystem, folder, error)}"
    return "no file matches"


def _absent(filesystem: Any, place: str, error: FileNotFoundError) -> str:
    """The bucket is told from the object, and a file system that is there from one that does not answer."""
    said = str(error)
    if "bucket" in said.lower():
        return f"does not exist: {said}"
    if "hdfs" in _protocols(filesystem):
        try:
            filesystem.info("/")
        except FileNotFoundError:  # Arrow's word for whatever goes wrong; Java's own goes to the log
            raise ConnectionError("the NameNode does not answer, not even for /; the log has Java's reason") from None
    if error.filename and error.filename != place:  # a file of this machine, such as a program that fetches keys
        return f"does not exist: {said}"
    return "does not exist"


def make_output(location: str) -> str:
    """Make the folder in which every worker shall write, as the script would; returns it. An output that looks like a
    file (it has a suffix, or is one) gets its parent: what the script makes there is the script's business."""
    path = local_path(location)
    if path is not None:
        folder = Path(path)
        if folder.is_file() or (folder.suffix and not folder.is_dir()):
            folder = folder.parent
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder.absolute())
    import fsspec

    filesystem, place = fsspec.core.url_to_fs(location)
    last = location.rstrip("/").rpartition("/")[2]
    if "." in last and not filesystem.isdir(place):
        location = location.rstrip("/").rpartition("/")[0]
        place = place.rstrip("/").rpartition("/")[0]
    if not _has_buckets(filesystem):  # these clients would make a bucket of a misspelt name
        filesystem.makedirs(place, exist_ok=True)
    return location


def _has_buckets(filesystem: Any) -> bool:
    return not OBJECT_STORES.isdisjoint(_protocols(filesystem))


def _protocols(filesystem: Any) -> tuple[str, ...]:
    """Of an fsspec file system, whose own account is one name or several."""
    given = filesystem.protocol
    return (given,) if isinstance(given, str) else tuple(given)


def unwritable(folders: Mapping[str, str]) -> dict[str, str]:
    """Name -> problem of every output folder in which this process cannot write and delete a file."""
    problems = {}
    for name, folder in folders.items():
        probe = f".mayfly-{secrets.token_hex(6)}"
        try:
            _write_and_delete(folder, probe)
        except Exception as error:
            problems[name] = _words(error, folder)
    return problems


def _words(error: Exception, location: str) -> str:
    """What went wrong; where it is a matter of permissions on a file system, whose folder it is and who asks."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    text = text if len(text) <= LONGEST_PROBLEM else f"{text[:LONGEST_PROBLEM]} ..."
    path = local_path(location)
    if path is None or not isinstance(error, PermissionError):
        return text
    for place in (Path(path), *Path(path).parents):
        with contextlib.suppress(OSError):
            found = place.stat()
            break
    else:
        return text
    groups = ", ".join(map(str, sorted({os.getgid(), *os.getgroups()})))
    text += (
        f" ({place} belongs to uid {found.st_uid}, gid {found.st_gid}, mode {found.st_mode & 0o7777:o}; who asks has "
    )
    text += f"the groups {groups}"
    if os.getuid() == 0:
        text += "; root is refused where an NFS export squashes it: there it is another user"
    return text + ")"


def _write_and_delete(folder: str, probe: str) -> None:
    path = local_path(folder)
    if path is not None:
        file = Path(path) / probe
        try:
            file.write_bytes(b"mayfly")
        finally:
            file.unlink(missing_ok=True)
        return
    import fsspec

    filesystem, place = fsspec.core.url_to_fs(folder)
    filesystem.pipe_file(f"{place.rstrip('/')}/{probe}", b"mayfly")
    filesystem.rm_file(f"{place.rstrip('/')}/{probe}")


# In threads: some clients try for minutes before they say that nobody answers, and the scheduler gives up a worker that
# it does not hear for so long.


async def _read(inputs: Mapping[str, str]) -> dict[str, str]:
    import asyncio

    return await asyncio.to_thread(unreadable, inputs)


async def _write(folders: Mapping[str, str]) -> dict[str, str]:
    import asyncio

    return await asyncio.to_thread(unwritable, folders)


async def run(
    scheduler: Any, *, inputs: Mapping[str, str], outputs: Mapping[str, str], security: Any
) -> dict[str, str]:
    """All checks on all present workers; the versions when they pass, PreflightError when not."""
    import asyncio

    import cloudpickle
    from distributed import Client

    # Workers in an environment of their own have no Mayfly: the checks travel as code, not by name.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    mine = report()
    async with Client(scheduler.address, security=security, asynchronous=True, set_as_default=False) as client:
        names = {address: f"worker {ws.name}" for address, ws in scheduler.workers.items()}
        reports: dict[str, Any] = await client.run(report)
        theirs = {names.get(address, address): found["versions"] for address, found in reports.items()}
        if difference := compare_versions(mine["versions"], theirs):
            raise PreflightError("version", difference)
        if inputs:
            here, there = await asyncio.gather(_read(inputs), client.run(_read, dict(inputs)))
            found = {f"the script's side, {mine['who']}": here}
            found |= {
                f"{names.get(a, a)}, {reports[a]['who']}": problems for a, problems in there.items() if a in reports
            }
            _complain("input", inputs, found, "read")
        if outputs:
            folders = {}
            for name, location in outputs.items():
                try:
                    folders[name] = await asyncio.to_thread(make_output, location)
                except Exception as error:
                    problem = _words(error, location)
                    _complain("output", outputs, {f"the script's side, {mine['who']}": {name: problem}}, "make")
            there = await client.run(_write, folders)
            found = {
                f"{names.get(a, a)}, {reports[a]['who']} (the folder was made by {mine['who']})": problems
                for a, problems in there.items()
                if a in reports
            }
            _complain("output", outputs, found, "write into")
    versions: dict[str, str] = mine["versions"]
    return versions


def _complain(kind: str, given: Mapping[str, str], found: Mapping[str, Mapping[str, str]], verb: str) -> None:
    lines = [
        f"{kind} {name!r} = {given[name]!r}: {by} cannot {verb} it: {problem}"
        for by, problems in found.items()
        for name, problem in problems.items()
    ]
    if lines:
        raise PreflightError(kind, "\n".join(lines))
