"""S3 on this machine: versitygw, built once by Go, on loopback. It checks signatures, as Amazon does.

A bucket is a folder below `buckets`, an object a file in it: what lies there can be read, and what is written shows up.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from scripts.cloud.servers import CloudError, GoProgram, free_port, listens
from scripts.hadoop.daemon import Daemon

PROGRAM = GoProgram(package="github.com/versity/versitygw/cmd/versitygw", version="1.8.0")
_READY_SECONDS = 30.0
_TRIES = 5
"""A free port may be taken by somebody else before the server has it."""


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
    program = PROGRAM.built()
    for name in ("pids", "logs", "buckets", "attributes"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    said = ""
    for _ in range(_TRIES):
        server = S3Server(folder, free_port())
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
        if listens(server.daemon.pid, server.port):
            return True
        time.sleep(0.02)
    return False
