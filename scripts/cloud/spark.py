"""Spark's jars on this machine, for `spark-submit` as clouds run it: what a Python file's carrier has to live with.

They come out of PyPI's `pyspark`, by the ordinary pip client and pinned by checksum, into
`$XDG_CACHE_HOME/mayfly/spark/<version>`: a SPARK_HOME with `jars` and `bin`. `command` needs only these jars and a JDK.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.cloud.servers import CloudError
from scripts.hadoop import jars

VERSION = "3.5.3"
_SHA256 = {VERSION: "68b7cc0c0c570a7d8644f49f40d2da8709b01d30c9126cc8cf93b4f84f3d9747"}
_MAIN = "org.apache.spark.deploy.SparkSubmit"
# What Spark's own scripts add on Java 17, as far as SparkSubmit needs it.
_OPENS = ("java.base/java.lang", "java.base/java.nio", "java.base/java.util", "java.base/sun.nio.ch")


def missing(version: str = VERSION) -> str | None:
    """What this machine lacks to run spark-submit, as a sentence; None when it has everything or can get it by pip."""
    try:
        jars.java_home()
    except jars.HadoopError as error:
        return str(error)
    return None if version in _SHA256 else f"no Spark {version} here: there is {', '.join(_SHA256)}."


def home(version: str = VERSION) -> Path:
    """The SPARK_HOME, downloaded if need be (317 MB, once). CloudError when that fails or a checksum differs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "mayfly" / "spark" / version
    if (folder / "jars").is_dir():
        return folder
    if version not in _SHA256:
        raise CloudError(f"no Spark {version} here: there is {', '.join(_SHA256)}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions at once: the second finds it there
        if not (folder / "jars").is_dir():
            _bring(version, folder)
    return folder


def _bring(version: str, folder: Path) -> None:
    print(f"downloading Spark {version} (317 MB, once) to {folder}", flush=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as tmp:
        wanted = Path(tmp, "requirements.txt")
        wanted.write_text(f"pyspark=={version} --hash=sha256:{_SHA256[version]}\n")
        done = subprocess.run(
            [
                sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps",
                "--no-binary=:all:", "--no-build-isolation", "--no-cache-dir", "--require-hashes", "-r", str(wanted),
                "-d", tmp,
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        archive = Path(tmp, f"pyspark-{version}.tar.gz")
        if done.returncode or not archive.exists():
            raise CloudError(f"pip could not download pyspark {version}:\n{(done.stderr or done.stdout)[-2000:]}")
        _unpack(archive, Path(tmp, "spark"), version)
        os.replace(Path(tmp, "spark"), folder)


def _unpack(archive: Path, folder: Path, version: str) -> None:
    with open(archive, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256[version]:
        raise CloudError(f"{archive.name} has the SHA-256 {found}, pinned is {_SHA256[version]}")
    inside = f"pyspark-{version}/deps/"
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.name.startswith((f"{inside}jars/", f"{inside}bin/"))]
        tar.extractall(folder, members, filter="data")
    for part in ("jars", "bin"):
        os.replace(folder / inside / part, folder / part)
    shutil.rmtree(folder / f"pyspark-{version}")


def command(
    main: Path, arguments: Sequence[str] = (), *, conf: Mapping[str, str] | None = None, heap_mib: int = 128
) -> list[str]:
    """argv of a spark-submit in client mode on this machine for a Python file; no shell lies between."""
    settings = {"spark.master": "local[1]", "spark.ui.enabled": "false", **(conf or {})}
    options = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    return [
        f"{jars.java_home()}/bin/java", f"-Xmx{heap_mib}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData", *(f"--add-opens={name}=ALL-UNNAMED" for name in _OPENS),
        "-cp", f"{home()}/jars/*", _MAIN, *options, str(main), *arguments,
    ]  # fmt: skip
