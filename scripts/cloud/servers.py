"""Servers of other projects on this machine: built once by Go, on loopback ports that are surely their own.

A built program is kept in `$XDG_CACHE_HOME/mayfly/bin`; Go fetches the source by its module proxy and checks it against
Go's checksum database.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
"""A state in proc(5)'s net/tcp."""


class CloudError(Exception):
    """Something about the cloud on this machine that its user can act on."""


@dataclass(frozen=True, kw_only=True)
class GoProgram:
    """A server's program; `package` is what Go calls it (`host/name/.../program`)."""

    package: str
    version: str

    @property
    def name(self) -> str:
        return self.package.rpartition("/")[2]

    @property
    def path(self) -> Path:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "mayfly" / "bin" / f"{self.name}-{self.version}"

    def missing(self) -> str | None:
        """What this machine lacks for it, as a sentence; None when it has everything."""
        if self.path.exists() or shutil.which("go"):
            return None
        return (
            f"{self.name} {self.version} is built by Go, and there is no `go` on the PATH. Install Go 1.24 or newer "
            "(in Debian: golang of backports; else https://go.dev/dl)."
        )

    def built(self) -> Path:
        """Its path, built if need be (1 to 2 minutes, once). CloudError when that fails."""
        path = self.path
        if path.exists():
            return path
        if why := self.missing():
            raise CloudError(why)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.parent / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions at once: the second finds it built
            if not path.exists():
                _build(f"{self.package}@v{self.version}", path)
        return path


def _build(module: str, path: Path) -> None:
    print(f"building {path.name} with Go (1 to 2 minutes, once)", flush=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as folder:
        done = subprocess.run(
            ["go", "install", module], env=os.environ | {"GOBIN": folder}, cwd=folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        built = Path(folder, module.partition("@")[0].rpartition("/")[2])
        if done.returncode or not built.exists():
            raise CloudError(f"`go install {module}` failed (exit code {done.returncode}):\n{done.stderr[-2000:]}")
        os.replace(built, path)


def listens(pid: int | None, port: int) -> bool:
    """Whether it is this process that has the port of 127.0.0.1: somebody else may have been quicker."""
    here = f"0100007F:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    sockets = {f"socket:[{line[9]}]" for line in lines if line[1] == here and line[3] == _LISTEN}
    try:
        files = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended
        return False
    return any(_leads_to(file) in sockets for file in files)


def _leads_to(file: Path) -> str:
    try:
        return os.readlink(file)
    except OSError:
        return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
