"""Cloud Storage on this machine: fake-gcs-server, built once by Go, on loopback.

`start(folder)` gives an `ObjectStore`; its `env` is what a client needs. Google's own clients, gcsfs and curl all find
it by STORAGE_EMULATOR_HOST.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from scripts.cloud.servers import CloudError, GoProgram, free_port, listens
from scripts.hadoop.daemon import Daemon

PROGRAM = GoProgram(package="github.com/fsouza/fake-gcs-server", version="1.56.1")
_READY_SECONDS = 240.0
_TRIES = 5
"""A free port may be taken by somebody else before the server has it."""
# A loopback address is never behind a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ObjectStore:
    """A running server, known by its folder: pid, log and, with the folder backend, the objects."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.daemon = Daemon("object-store", folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """For clients. The second switches off gcsfs's question for a bucket's kind: it is asked by gRPC with TLS,
        which no emulator speaks, and costs a minute a bucket."""
        return {"STORAGE_EMULATOR_HOST": self.url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}

    def make_bucket(self, name: str) -> str:
        """Its URL (gs://name). There already = fine. Names have at least 3 letters, as Google's."""
        try:
            self.request("POST", "/storage/v1/b?project=mayfly", {"name": name})
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 409:
                    raise CloudError(f"no bucket {name!r}: {error.code} {error.read()[:500]!r}") from error
        return f"gs://{name}"

    def put(self, bucket: str, name: str, data: bytes) -> None:
        name = urllib.parse.quote(name, safe="")
        self.request("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", data)

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Of the bucket's objects."""
        prefix = urllib.parse.quote(prefix, safe="")
        said = json.loads(self.request("GET", f"/storage/v1/b/{bucket}/o?prefix={prefix}"))
        return [item["name"] for item in said.get("items", ())]

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """One call of the JSON API, with bytes or what becomes JSON; urllib's HTTPError when it is refused."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with _OPENER.open(asked, timeout=60) as answer:
            return bytes(answer.read())

    def stop(self) -> None:
        """End the server and wait until it is gone. The folder stays."""
        self.daemon.stop()

    def __enter__(self) -> ObjectStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(folder: Path, *, port: int = 0, keep: bool = False) -> ObjectStore:
    """Start a server and wait until it answers.

    `port` 0 = any free one. Objects live in memory; with `keep` in `<folder>/objects`, where a later start finds them.
    """
    server = PROGRAM.built()
    folder = folder.resolve()
    for name in ("pids", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    backend = ["-backend", "filesystem", "-filesystem-root", f"{folder}/objects"] if keep else ["-backend", "memory"]
    for _ in range(_TRIES if port == 0 else 1):
        store = ObjectStore(folder, port or free_port())
        # -public-host: the names under which it shall be asked; Google's own would need DNS.
        argv = [
            str(server), "-scheme", "http", "-host", "127.0.0.1", "-port", str(store.port), *backend,
            "-external-url", store.url, "-public-host", f"127.0.0.1:{store.port}", "-log-level", "warn",
        ]  # fmt: skip
        store.daemon.start(argv, dict(os.environ))
        try:
            if _answers(store):
                return store
        except BaseException:
            store.stop()
            raise
        said = store.daemon.tail()
        store.stop()
    raise CloudError(f"the object store did not start on port {port or 'any'}:\n{said}")


def _answers(store: ObjectStore) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and store.daemon.pid is not None:
        try:
            store.request("GET", "/storage/v1/b?project=mayfly")
            # Somebody else's server may have answered on a port that ours did not get; ours then ends, if not at once.
            if listens(store.daemon.pid, store.port):
                return True
        except OSError:
            pass
        time.sleep(0.02)
    return False
