"""Hadoop's native library for Arrow's client of hdfs://, which no package of Maven's or PyPI's holds ready-made.

PyPI's `pydoop` brings its C sources: by the ordinary pip client, pinned by checksum, compiled by this machine's C
compiler against the JDK's headers into `$XDG_CACHE_HOME/mayfly/hadoop/libhdfs-<version>.so`. It speaks to the jars of
any Hadoop 3. What images of clouds have is Hadoop's own build of the same sources.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from . import jars
from .jars import HadoopError

VERSION = "2.0.0"
_SHA256 = "c7eb2ad8c36d2a75dc1c6cee701928334614f2e862a70798b0cb278e3102f77d"
_SOURCES = ("*.c", "common/*.c", "os/posix/*.c")
_HEADERS = (".", "include", "include/hdfs", "os/posix")


def missing() -> str | None:
    """What this machine lacks to build it, as a sentence; None when it has everything or it is built."""
    if path().exists():
        return None
    try:
        java = jars.java_home()
    except HadoopError as error:
        return str(error)
    if not (java / "include" / "jni.h").exists():
        return f"libhdfs is compiled against Java's headers, and {java} has none: it is no JDK."
    return None if shutil.which("cc") else "libhdfs is compiled by a C compiler, and there is no `cc` on the PATH."


def path() -> Path:
    return jars.cache_dir("") / f"libhdfs-{VERSION}.so"


def library() -> Path:
    """The library, built if need be (a few seconds, once). HadoopError when that fails or a checksum differs."""
    if path().exists():
        return path()
    if why := missing():
        raise HadoopError(why)
    path().parent.mkdir(parents=True, exist_ok=True)
    with open(path().parent / ".libhdfs.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions at once: the second finds it there
        if not path().exists():
            with tempfile.TemporaryDirectory(prefix=".libhdfs-", dir=path().parent) as folder:
                os.replace(_compile(_sources(Path(folder)), Path(folder)), path())
    return path()


def _sources(folder: Path) -> Path:
    """pip runs a source package's setup.py to know its requirements; this one looks for Java then, and for a setuptools
    that is long gone."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"pydoop=={VERSION} --hash=sha256:{_SHA256}\n")
    old = folder / "constraints.txt"
    old.write_text("setuptools<81\n")
    _do(
        [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps",
            "--no-binary=pydoop", "--no-cache-dir", "--require-hashes",
            "-r", str(wanted), "-d", str(folder),
        ],
        what=f"pip could not download pydoop {VERSION}",
        PIP_CONSTRAINT=str(old),  # of what it is built with, too; newer pips have a word of their own for that
        PIP_BUILD_CONSTRAINT=str(old),
    )  # fmt: skip
    with tarfile.open(folder / f"pydoop-{VERSION}.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    return folder / f"pydoop-{VERSION}" / "src" / "libhdfs"


def _compile(sources: Path, folder: Path) -> Path:
    java, built = jars.java_home(), folder / "libhdfs.so"
    files = sorted(str(file) for pattern in _SOURCES for file in sources.glob(pattern))
    headers = [*(sources / part for part in _HEADERS), java / "include", java / "include" / "linux"]
    _do(
        [
            "cc", "-O1", "-fPIC", "-shared", "-w", *(f"-I{place}" for place in headers), "-o", str(built), *files,
            "-lpthread", f"-L{java}/lib/server", "-ljvm",
        ],
        what="libhdfs could not be compiled",
    )  # fmt: skip
    return built


def _do(command: list[str], *, what: str, **variables: str) -> None:
    env = os.environ | {"JAVA_HOME": str(jars.java_home()), **variables}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HadoopError(f"{what}:\n{(done.stderr or done.stdout)[-2000:]}")
