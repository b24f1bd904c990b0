"""What lies in a container's folder before the worker starts: files that YARN brings there.

| name | what |
|---|---|
| `job` | the job's folder, unpacked once a node |
| `environment` | the packed interpreter, unpacked once a node; when the order has one |
| `mayfly.json` | settings of `mayfly_worker.py`, with the job's `env:` |
| `dask.yaml` | the job's Dask settings |
| `tls.crt`, `tls.key` | the run's certificate |
| `mayfly_worker.py`, `mayfly_preload.py` | what starts the worker, what every worker loads |
"""

from __future__ import annotations

import json
import os
import platform
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mayfly.driver.environment import speaks_of_hdfs
from mayfly.driver.launchers.base import Launch
from mayfly.driver.launchers.sizing import worker_limit
from mayfly.yarn.site import user_of

WORKER = Path(__file__).parent.parent / "mayfly_worker.py"
HDFS_VARIABLES = ("CLASSPATH", "ARROW_LIBHDFS_DIR", "JAVA_HOME")
"""What Arrow's client of hdfs:// needs; see `hdfs_variables`."""
DEATH_TIMEOUT = 60
"""Seconds after which a worker that cannot reach the scheduler ends."""


def worker_files(
    launch: Launch, *, scheduler: str, watchdog: dict[str, Any], ports: tuple[int, int], folder: Path
) -> dict[str, Path]:
    """Name in the container -> local file. Archives end in `.tar.gz` and are unpacked. `folder` is private."""
    archive = folder / "job.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(launch.job, arcname=".", filter=_without_caches)
    settings = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "versions": {name: version(name) for name in ("dask", "distributed")},
        "env": dict(launch.order.env),
        "scheduler": scheduler,
        "threads": launch.workers.cores,
        "memory": worker_limit(launch.workers.memory),
        "watchdog": watchdog,
        "patience": DEATH_TIMEOUT,
        "hdfs_user": user_of(os.environ) if speaks_of_hdfs(launch.order) else "",
        "hdfs": {name: os.environ[name] for name in HDFS_VARIABLES if name in os.environ},
        "arguments": _port_arguments(ports),
    }
    write_private(folder / "mayfly.json", json.dumps(settings, ensure_ascii=False).encode())
    return {
        "job": archive,
        "mayfly.json": folder / "mayfly.json",
        "dask.yaml": launch.folder / "dask.yaml",
        "tls.crt": Path(launch.security.tls_ca_file),
        "tls.key": Path(launch.security.tls_worker_key),
        "mayfly_worker.py": WORKER,
        "mayfly_preload.py": launch.preload,
    }


def worker_script(python: str) -> str:
    """The container's bash script. `python` comes from the target or is the pack's: a path, and quoted."""
    quoted = "'" + python.replace("'", "'\\''") + "'"
    return f"exec {quoted} -E -s mayfly_worker.py"


def fast_heartbeat_jar(yarn_site: Path, jar: Path) -> Path:
    """A jar that shadows yarn-site.xml for one application master, whose idle heartbeat is
    `min(5 s, yarn.am.liveness-monitor.expiry-interval-ms / 2)`: with 1000 it asks for containers every 0.5 s."""
    tree = ElementTree.parse(yarn_site)
    root = tree.getroot()
    name = "yarn.am.liveness-monitor.expiry-interval-ms"
    for entry in [entry for entry in root.findall("property") if entry.findtext("name") == name]:
        root.remove(entry)
    entry = ElementTree.SubElement(root, "property")
    ElementTree.SubElement(entry, "name").text = name
    ElementTree.SubElement(entry, "value").text = "1000"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("yarn-site.xml", ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    return jar


def write_private(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def _port_arguments(ports: tuple[int, int]) -> list[str]:
    """Nanny and worker share the range."""
    if ports == (0, 0):
        return []
    return ["--worker-port", f"{ports[0]}:{ports[1]}", "--nanny-port", f"{ports[0]}:{ports[1]}"]


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if entry.name.endswith(("/__pycache__", ".pyc")) else entry
