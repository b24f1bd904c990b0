"""S3 on this machine: versitygw, built once by Go, on loopback. It checks signatures, as Amazon does.

A bucket is a folder below `buckets`, an object a file in it: what lies there can be read, and what is written shows up.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from pathlib import Path

from scripts.cloud.object_store import CloudError, go_install
from scripts.hadoop.daemon import Daemon

VERSION = "1.8.0"
_MODULE = f"github.com/versity/versitygw/cmd/versitygw@v{VERSION}"
_READY_SECONDS = 30.0
_TRIES = 5
"""A free port may be taken by somebody else before the server has it."""


def program_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mayfly" / "bin" / f"versitygw-{VERSION}"


def missing() -> str | None:
    """What this machine lacks for an S3 server, as a sentence; None when it has everything."""
    if program_path().exists() or shutil.which("go"):
        return None
    return f"versitygw {VERSION} is built by Go, and there is no `go` on the PATH. Install Go (https://go.dev/dl)."


class S3Server:
    """A running server, known by its folder. `key` and `secret` are the only account's, made for it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.key, self.secret = f"MAYFLY{secrets.token_hex(5).upper()}", secrets.token_hex(20)
        self.daemon = Daemon("s3-server", folder)

    @property
    def buckets(self) -> Path:
        return self.folder / "buckets"

    def client_config(self) -> str:
        """What AWS_CONFIG_FILE names, with address and keys."""
        return (
            f"[default]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:{self.port}\n"
            f"aws_access_key_id = {self.key}\naws_secret_access_key = {self.secret}\n"
        )

    def stop(self) -> None:
        """End the server and wait until it is gone. The folder stays."""
        self.daemon.stop()

    def __enter__(self) -> S3Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(folder: Path) -> S3Server:
    """Start a server on a free port and wait until it listens. CloudError when it does not."""
    if why := missing():
        raise CloudError(why)
    program = go_install(_MODULE, program_path())
    for name in ("pids", "logs", "buckets", "attributes"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    said = ""
    for _ in range(_TRIES):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            server = S3Server(folder, probe.getsockname()[1])
        # --sidecar: not every file system has extended attributes. --default-etag: for files put there by hand.
        server.daemon.start(
            [
                *[str(program), "--port", f"127.0.0.1:{server.port}", "posix", "--default-etag", "mayfly"],
                *["--sidecar", str(folder / "attributes"), str(server.buckets)],
            ],
            os.environ | {"ROOT_ACCESS_KEY": server.key, "ROOT_SECRET_KEY": server.secret},
        )
        if _listens(server):
            return server
        said = server.daemon.tail()
        server.stop()
    raise CloudError(f"the S3 server did not start:\n{said}")


def _listens(server: S3Server) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and server.daemon.pid is not None:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
            # Somebody else's server may listen on a port that ours did not get; ours then ends within moments.
            return not server.daemon.wait(0.1)
        except OSError:
            time.sleep(0.02)
    return False
