"""Cloud Storage on this machine: fake-gcs-server, built once by Go, on loopback.

`start(folder)` gives an `ObjectStore`; its `env` is what a client needs. Google's own clients, gcsfs and curl all find
it by STORAGE_EMULATOR_HOST. The built program is kept in `$XDG_CACHE_HOME/mayfly/bin`; Go fetches the source by its
module proxy and checks it against Go's checksum database.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from scripts.hadoop.daemon import Daemon

VERSION = "1.56.1"
_MODULE = f"github.com/fsouza/fake-gcs-server@v{VERSION}"
_READY_SECONDS = 240.0
_LISTEN = "0A"
"""A state in proc(5)'s net/tcp."""
_TRIES = 5
"""A free port may be taken by somebody else before the server has it."""
# A loopback address is never behind a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class CloudError(Exception):
    """Something about the cloud on this machine that its user can act on."""


def program_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mayfly" / "bin" / f"fake-gcs-server-{VERSION}"


def missing() -> str | None:
    """What this machine lacks for an object store, as a sentence; None when it has everything."""
    if program_path().exists() or shutil.which("go"):
        return None
    return (
        f"fake-gcs-server {VERSION} is built by Go, and there is no `go` on the PATH. Install Go 1.24 or newer (in "
        "Debian: golang of backports; else https://go.dev/dl)."
    )


def program() -> Path:
    """The server's program, built if need be (1 to 2 minutes, once). CloudError when that fails."""
    path = program_path()
    if path.exists():
        return path
    if why := missing():
        raise CloudError(why)
    return go_install(_MODULE, path)


def go_install(module: str, path: Path) -> Path:
    """The program of a Go module (`host/name/.../program@version`) as `path`, built if it is not there yet. CloudError
    when that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions at once: the second finds it built
        if not path.exists():
            _build(module, path)
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
    server = program()
    folder = folder.resolve()
    for name in ("pids", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    backend = ["-backend", "filesystem", "-filesystem-root", f"{folder}/objects"] if keep else ["-backend", "memory"]
    for _ in range(_TRIES if port == 0 else 1):
        store = ObjectStore(folder, port or _free_port())
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
            if _listens(store):
                return True
        except OSError:
            pass
        time.sleep(0.02)
    return False


def _listens(store: ObjectStore) -> bool:
    """Whether it is this server's own process that has the port."""
    here = f"0100007F:{store.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    sockets = {f"socket:[{line[9]}]" for line in lines if line[1] == here and line[3] == _LISTEN}
    try:
        files = list(Path(f"/proc/{store.daemon.pid}/fd").iterdir())
    except OSError:  # it has ended
        return False
    return any(_leads_to(file) in sockets for file in files)


def _leads_to(file: Path) -> str:
    try:
        return os.readlink(file)
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
