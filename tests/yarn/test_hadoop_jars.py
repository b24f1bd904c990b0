"""What a missing or damaged part of the local Hadoop is called. No Hadoop runs here."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from scripts.hadoop import HadoopError, jars, missing, versions


def test_versions_are_pinned() -> None:
    assert versions() == ("3.3.6", "3.4.3", "3.5.0")
    assert jars.DEFAULT_VERSION in versions()
    with pytest.raises(HadoopError, match=r"no Hadoop 2\.10 here: there are 3\.3\.6, 3\.4\.3, 3\.5\.0\."):
        jars.lib("2.10")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two jars of a made-up version, and its list of checksums."""
    monkeypatch.setattr(jars, "HERE", tmp_path / "pins")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lib = jars.cache_dir("9.9") / "lib"
    lib.mkdir(parents=True)
    (tmp_path / "pins").mkdir()
    pins = []
    for name in ("a.jar", "b.jar"):
        (lib / name).write_bytes(name.encode())
        pins.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n")
    (tmp_path / "pins" / "9.9.sha256").write_text("".join(pins))
    return lib


def test_jars_are_checked_again_when_they_change(cached: Path) -> None:
    assert jars.lib("9.9") == cached
    assert jars.lib("9.9") == cached
    (cached / "a.jar").write_bytes(b"other")
    with pytest.raises(HadoopError, match=r"9\.9\.sha256\): a\.jar differs: SHA-256 [0-9a-f]{64}, pinned is .*rm -r '"):
        jars.lib("9.9")


def test_a_jar_missing_or_too_many(cached: Path) -> None:
    (cached / "b.jar").rename(cached / "c.jar")
    with pytest.raises(HadoopError, match=r"b\.jar is missing; c\.jar is not in the list\. To download them again"):
        jars.lib("9.9")


def script(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def test_no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing() == (
        "Hadoop needs a JDK 17 or newer: there is no `java` on the PATH. Install one, or set JAVA_HOME."
    )
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(HadoopError, match=r"JAVA_HOME is '.*', which has no bin/java"):
        jars.java_home()


def test_old_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "    java.home = /old\\n    java.specification.version = 1.8\\n"
    script(tmp_path / "bin/java", f"printf '{said}' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(HadoopError, match=r"Hadoop needs a JDK 17 or newer: .*/bin/java is 8\."):
        jars.java_home()
    script(tmp_path / "bin/java", "echo broken >&2; exit 3")
    with pytest.raises(HadoopError, match=r"failed \(exit code 3\): broken"):
        jars.java_home()


def test_no_maven_and_a_maven_that_fails(tmp_path: Path, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "    java.home = /new\\n    java.specification.version = 17\\n"
    script(tmp_path / "jdk/bin/java", f"printf '{said}' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin-that-is-not-there")
    for jar in cached.glob("*"):
        jar.unlink()
    cached.rmdir()
    assert "there is no `mvn` on the PATH" in str(missing("9.9"))
    script(tmp_path / "bin/mvn", "echo '[ERROR] no network'; exit 1")
    with pytest.raises(HadoopError, match=r"could not download Hadoop 9\.9 \(exit code 1\):\n\[ERROR\] no network"):
        jars.lib("9.9")
    # What was left of the failed download is gone, and the next try begins anew.
    assert [file.name for file in cached.parent.iterdir()] == [".lock"]
    assert missing("9.9") is None
