"""Java, Maven and Hadoop's jars: found, downloaded once, and checked against the pinned checksums.

The jars come by the ordinary Maven client, from wherever it is configured to take them, into
`$XDG_CACHE_HOME/mayfly/hadoop/<version>`. `<version>.sha256` beside this file names every jar and its SHA-256; a jar
that is missing, too many or different stops the start.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_VERSION = "3.5.0"
MIN_JAVA = 17
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
# A second binding of slf4j and the library it binds; Hadoop itself logs by reload4j.
_EXCLUDED = "slf4j-log4j12,log4j"
_STAMP = ".checked"


class HadoopError(Exception):
    """Something about the local Hadoop that its user can act on."""


def versions() -> tuple[str, ...]:
    """The versions of Hadoop whose jars are pinned, oldest first."""
    return tuple(sorted((file.stem for file in HERE.glob("*.sha256")), key=lambda v: [int(n) for n in v.split(".")]))


def java_home() -> Path:
    """Home of the JDK: $JAVA_HOME, else the one of `java` on the PATH. HadoopError when there is none or an old one."""
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin/java") if home else shutil.which("java")
    if not java or not Path(java).exists():
        where = f"JAVA_HOME is {home!r}, which has no bin/java" if home else "there is no `java` on the PATH"
        raise HadoopError(f"Hadoop needs a JDK {MIN_JAVA} or newer: {where}. Install one, or set JAVA_HOME.")
    said = subprocess.run(
        [str(java), "-XshowSettings:properties", "-version"], capture_output=True, text=True, check=False
    )
    release = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", said.stderr, re.MULTILINE)
    found = re.search(r"^\s*java\.home = (.+)$", said.stderr, re.MULTILINE)
    if said.returncode or not release or not found:
        raise HadoopError(f"`{java} -version` failed (exit code {said.returncode}): {said.stderr.strip()[:500]}")
    if int(release[1]) < MIN_JAVA:
        raise HadoopError(
            f"Hadoop needs a JDK {MIN_JAVA} or newer: {java} is {release[1]}. Install one, or set JAVA_HOME."
        )
    return Path(found[1].strip())


def cache_dir(version: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mayfly" / "hadoop" / version


def missing(version: str = DEFAULT_VERSION) -> str | None:
    """What this machine lacks for a Hadoop, as a sentence; None when it has everything."""
    try:
        java_home()
        if not (cache_dir(version) / _STAMP).exists():
            _maven()
    except HadoopError as error:
        return str(error)
    return None


def _maven() -> str:
    mvn = shutil.which("mvn")
    if not mvn:
        raise HadoopError("Hadoop's jars are downloaded by Maven, and there is no `mvn` on the PATH. Install it.")
    return mvn


def lib(version: str = DEFAULT_VERSION) -> Path:
    """Folder with the jars of a version, downloaded if need be. HadoopError when that fails or a checksum differs."""
    pinned = HERE / f"{version}.sha256"
    if not pinned.exists():
        raise HadoopError(f"no Hadoop {version} here: there are {', '.join(versions())}.")
    folder = cache_dir(version)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = folder / "lib"
        if not jars.exists():
            download(version, jars)
        _verify(pinned, jars, folder / _STAMP)
    return jars


def download(version: str, jars: Path) -> None:
    """Let Maven copy the jars of a version into a folder; whole or not at all."""
    mvn = _maven()
    print(f"downloading the jars of Hadoop {version} (100 MB) to {jars}", flush=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=jars.parent) as tmp:
        done = subprocess.run(
            [
                mvn, "-B", "-q", "-f", str(HERE / "pom.xml"), f"-Dhadoop.version={version}", _PLUGIN,
                f"-DoutputDirectory={tmp}/lib", "-DincludeScope=runtime", f"-DexcludeArtifactIds={_EXCLUDED}",
                # Not ~/.m2: what lies there may come from elsewhere, and would stay for ever.
                f"-Dmaven.repo.local={tmp}/repository",
            ],
            env=os.environ | {"JAVA_HOME": str(java_home())},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode or not Path(tmp, "lib").is_dir():
            said = "\n".join([line for line in done.stdout.splitlines() if "ERROR" in line][:5]) or done.stdout[-1000:]
            raise HadoopError(f"Maven could not download Hadoop {version} (exit code {done.returncode}):\n{said}")
        os.replace(f"{tmp}/lib", jars)


def checksums(jars: Path) -> dict[str, str]:
    sums = {}
    for jar in sorted(jars.glob("*.jar")):
        with open(jar, "rb") as file:
            sums[jar.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _verify(pinned: Path, jars: Path, stamp: Path) -> None:
    """Hash every jar, unless the same files (by size and time) were hashed against the same pins before."""
    lines = pinned.read_text()
    state = lines + "".join(
        f"{jar.name} {jar.stat().st_size} {jar.stat().st_mtime_ns}\n" for jar in sorted(jars.glob("*.jar"))
    )
    if stamp.exists() and stamp.read_text() == state:
        return
    expected = {name: digest for digest, name in (line.split("  ") for line in lines.splitlines())}
    found = checksums(jars)
    wrong = [name for name in expected if name in found and found[name] != expected[name]]
    problems = [f"{name} differs: SHA-256 {found[name]}, pinned is {expected[name]}" for name in wrong]
    problems += [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{name} is not in the list" for name in sorted(found.keys() - expected.keys())]
    if problems:
        raise HadoopError(
            f"the jars in {jars} are not the pinned ones ({pinned.name}): {'; '.join(problems[:5])}"
            + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
            + f". To download them again: rm -r '{jars}'"
        )
    stamp.write_text(state)
