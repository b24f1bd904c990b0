"""The job's packed interpreter on the cluster's own file system, where YARN takes it from: once a node.

YARN keeps what it has unpacked as long as address and modification time stay the same. So the archive lies at a place
named by its content, is brought there once, and is never touched again: a second start on a cluster transfers nothing.
It is brought beside its place and moved there, so that nobody sees half of it; what lies there was whole, and right by
its checksum, when it was brought.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from mayfly.contract import Environment, FailureClass
from mayfly.driver.launchers.base import LaunchError
from mayfly.staging.stores import Store

UPLOAD_SECONDS = 1800.0
_BLOCK = 4 << 20
_JAVA_OPTIONS = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def place_of(environment: Environment, *, default_fs: str, user: str) -> str:
    """Its address on the cluster's file system."""
    name = environment.path.rpartition("/")[2].removesuffix(".tar.gz")
    return f"{default_fs.rstrip('/')}/user/{user}/.mayfly/envs/{name}-{environment.sha256[:12]}.tar.gz"


def bring(environment: Environment, *, store: Store, place: str, folder: Path, say: Callable[[str], None]) -> None:
    """Copy it to `place`, by Hadoop's own file system shell, whatever file system that is. LaunchError. Blocking.

    `folder` is scratch space for a store that is not on this machine."""
    began = time.monotonic()
    archive = _local(environment, store=store, folder=folder)
    shell = _Shell()
    above, beside = place.rpartition("/")[0], f"{place}.{secrets.token_hex(8)}.new"
    shell.run("-mkdir", "-p", above)
    shell.run("-put", "-f", f"file://{archive}", beside)
    if shell.run("-mv", beside, place, check=False):
        shell.run("-rm", "-f", "-skipTrash", beside, check=False)
        shell.run("-test", "-e", place)  # somebody else was first
    say(f"brought the environment ({environment.bytes / 1e6:.0f} MB) to {place} in {time.monotonic() - began:.0f} s")


def remove(place: str) -> None:
    """Absent = done. Blocking."""
    _Shell().run("-rm", "-f", "-skipTrash", place)


def _local(environment: Environment, *, store: Store, folder: Path) -> Path:
    """The archive as a file of this machine, with the right checksum."""
    where = f"{store.url}/{environment.path}"
    source = store.open(environment.path)
    if source is None:
        raise LaunchError(
            FailureClass.START_FAILED,
            f"the environment {where} is missing: clear the run to plan anew, which uploads it",
        )
    local = Path(store.url.removeprefix("file://")) / environment.path
    copy = None if store.url.startswith("file://") else folder / "environment.tar.gz"
    digest = hashlib.sha256()
    with source:
        with open(copy or os.devnull, "wb") as target:
            while block := source.read(_BLOCK):
                digest.update(block)
                target.write(block)
    if digest.hexdigest() != environment.sha256:
        raise LaunchError(
            FailureClass.START_FAILED,
            f"the environment {where} is damaged: its checksum is {digest.hexdigest()}, it was built with "
            f"{environment.sha256}. Remove it with `mayfly env rm` and clear the run to plan anew",
        )
    return copy or local


class _Shell:
    """Hadoop's FsShell: `hadoop fs`, but for machines on which only `yarn` is on PATH."""

    def __init__(self) -> None:
        told = subprocess.run(["yarn", "classpath", "--glob"], capture_output=True, text=True, check=True)
        home = os.environ.get("JAVA_HOME")
        self._java = f"{home}/bin/java" if home else "java"
        self._environment = {**os.environ, "CLASSPATH": told.stdout.strip()}

    def run(self, *arguments: str, check: bool = True) -> int:
        command = [self._java, *_JAVA_OPTIONS, "org.apache.hadoop.fs.FsShell", *arguments]
        done = subprocess.run(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=UPLOAD_SECONDS,
        )
        if done.returncode and check:
            said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
            raise LaunchError(
                FailureClass.START_FAILED,
                f"the environment could not be brought to the cluster's file system: `hadoop fs {' '.join(arguments)}` "
                f"failed:\n{said}",
            )
        return done.returncode
