"""Environments, the pure part: requirements, locks, keys, conflicts, ELF; and archives, which are half pure."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from mayfly.contract import FrozenTarget
from mayfly.contract.nodes import GcpPlan
from mayfly.environments import archive, elf
from mayfly.environments.requirements import (
    EXTRAS,
    RUNTIME,
    Header,
    conflicts,
    essential,
    extras_of,
    inputs_hash,
    key_of,
    lacking,
    mayfly_needs,
    needs_environment,
    packages_of,
    parse_header,
    parse_lines,
    render_lock,
    satisfiable,
    upload_seconds,
)
from mayfly.environments.sources import is_fresh, read_lock, read_source, source_of
from mayfly.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
BODY = "dask==2026.8.0 \\\n    --hash=sha256:aa\nzict==3.0.0 \\\n    --hash=sha256:bb\n"


def target(**changes: object) -> FrozenTarget:
    given: dict[str, object] = {"name": "edge", "backend": "local", "launcher": "yarn", "staging": "file:///s"}
    return FrozenTarget(**given | changes)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what is needed


def test_the_nodes_get_what_mayfly_itself_asks_for() -> None:
    """One Dask on the driver, the workers and the developer's machine: the ranges are the same everywhere."""

    def asked(file: str) -> set[str]:
        text = (ROOT / file).read_text()
        return {re.sub(r"\s+#.*|\s", "", line) for line in text.splitlines() if line and not line.startswith("#")}

    assert set(RUNTIME) <= asked("requirements.txt")
    assert {re.sub(r"\s", "", line) for line in EXTRAS["yarn"]} == asked("requirements/yarn.txt")
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["dynamic"][
        "optional-dependencies"
    ] == {"yarn": {"file": ["requirements/yarn.txt"]}, "gcp": {"file": ["requirements/gcp.txt"]}}
    assert set(EXTRAS["gs"]) <= asked("requirements/gcp.txt")


def test_who_needs_an_environment() -> None:
    assert needs_environment(target())
    assert not needs_environment(target(python="/opt/python/bin/python3"))
    assert not needs_environment(target(launcher="processes"))
    one_machine = target(launcher="processes", backend="dataproc", gcp=GcpPlan(project="p", region="r"))
    assert needs_environment(one_machine)  # an image's Python has no Dask
    assert not needs_environment(replace(one_machine, python="/opt/conda/bin/python"))
    assert extras_of(target()) == {"yarn"}
    assert extras_of(target(staging="gs://bucket/mayfly")) == {"yarn", "gs"}
    assert extras_of(target(staging="s3://bucket", launcher="processes")) == {"s3"}


# ---------------------------------------------------------------- requirements


def test_reading_requirements() -> None:
    text = "# all\npandas>=2  # frames\n\nscikit-learn \\\n  >=1.5\n-r more.txt\n--constraint=c.txt\nx>=1\n"
    lines, included = parse_lines(text, shown="jobs/requirements.txt")
    assert [line.text.replace(" ", "") for line in lines] == ["pandas>=2", "scikit-learn>=1.5", "x>=1"]
    assert [line.where for line in lines] == [f"jobs/requirements.txt:{number}" for number in (2, 4, 8)]
    assert included == [("-r", "more.txt"), ("-c", "c.txt")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--index" + "-url https://me:secret@host/simple", "cannot stand here; set UV_INDEX"),
        ("--extra-" + "index-url=https://host/simple", "cannot stand here; set UV_INDEX"),
        ("-e .", "the option -e cannot stand here; leave it out"),
        ("./wheels/mine-1.whl", "is a path; code of your own belongs into the job's folder"),
        ("mine @ file:///home/me/mine.whl", "names a file of one machine"),
        ("pandas=>2", "is no requirement"),
        ("pandas numpy", "is no requirement"),
    ],
)
def test_what_cannot_travel_is_refused_with_its_line(line: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_lines(f"ok\n{line}\n", shown="jobs/trips/requirements.txt")
    assert str(caught.value).startswith("jobs/trips/requirements.txt:2: ")
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("specifiers", "possible"),
    [
        (">=2026.8,<2025", False),
        (">=2026.8,==2025.1.0", False),
        (">=2026.8,==2026.*", True),
        (">=2026.8,<=2026.8", True),
        (">=2026.8,<2026.8", False),
        (">=2026.8,~=2026.8", True),
        (">=2026.8,~=2026.7.1", False),
        (">=3.1,!=3.1", True),
        (">3,<3.0.1", True),
        (">=19,<20", True),
        ("==0.8.2,>=0.9", False),
        ("==0.8.2,<1", True),
        ("<0.5,>=0.4.9", True),
        ("", True),
        (">=6", True),
        ("===old-style", True),
    ],
)
def test_whether_a_version_can_satisfy_both(specifiers: str, possible: bool) -> None:
    assert satisfiable(SpecifierSet(specifiers)) is possible


def test_a_conflict_names_both_sides() -> None:
    lines, _ = parse_lines(
        "pandas\nDask[array]<2025\nbokeh==2.4.3; python_version < '3.9'\n", shown="jobs/trips/requirements.txt"
    )
    assert conflicts(lines, RUNTIME, python="3.11") == [
        "jobs/trips/requirements.txt:2 asks Dask<2025, Mayfly needs dask>=2026.8"
    ]
    assert len(conflicts(lines, RUNTIME, python="3.8")) == 2


def test_no_conflict_with_what_mayfly_needs_on_another_python() -> None:
    lines, _ = parse_lines("setuptools<70\n", shown="jobs/requirements.txt")
    assert conflicts(lines, mayfly_needs({"yarn"}), python="3.11") == []
    assert conflicts(lines, mayfly_needs({"yarn"}), python="3.12") == [
        "jobs/requirements.txt:1 asks setuptools<70, Mayfly needs setuptools>=77"
    ]


def test_the_essential_lines_of_a_long_failure() -> None:
    output = (
        "Resolved 3 packages in 1s\nwarning: something\nerror: No solution found when resolving dependencies\n"
        "  cause: Because a depends on b\n         and you require c,\n         it fails.\n\nhint: do this\n"
    )
    assert essential(output) == [
        "error: No solution found when resolving dependencies",
        "cause: Because a depends on b and you require c, it fails.",
        "hint: do this",
    ]
    long = essential("\n".join(f"error: {number} {'x' * 1000}" for number in range(200)))
    assert len(long) == 16
    assert long[-1] == "... and 185 lines more"
    assert max(map(len, long)) < 620


def test_how_long_an_upload_takes() -> None:
    assert upload_seconds(200_000_000, staging="file:///x") == 1.0
    assert upload_seconds(200_000_000, staging="gs://bucket") == 10.0


# ---------------------------------------------------------------- locks


def test_a_lock_knows_what_it_was_made_of() -> None:
    header = Header(inputs="0" * 64, python="3.11", extras=frozenset({"yarn", "gs"}))
    text = render_lock(BODY, header)
    assert parse_header(text) == header
    assert packages_of(text) == {"dask": "2026.8.0", "zict": "3.0.0"}
    assert parse_header(BODY) is None
    plain = Header(inputs="f" * 64, python="3.12", extras=frozenset())
    assert parse_header(render_lock(BODY, plain)) == plain


def test_the_key_is_of_content_alone() -> None:
    header = Header(inputs="0" * 64, python="3.11", extras=frozenset({"yarn"}))
    key = key_of(render_lock(BODY, header), python="3.11")
    assert key == key_of(BODY, python="3.11") == key_of(f"# else\n{BODY}\n\n", python="3.11")
    assert re.fullmatch(r"[0-9a-f]{20}", key)
    assert key != key_of(BODY.replace("aa", "ab"), python="3.11")
    assert key != key_of(BODY, python="3.12")


def test_data_that_nothing_in_the_environment_opens() -> None:
    lock = f"{BODY}\ns3fs==2026.9.0 \\\n    --hash=sha256:aa\n"
    places = ("s3://lake/a", "gs://lake/b", "/shared/c", "hdfs:///d", "file:///e", "f/g.csv")
    assert lacking(places, lock=lock) == [("gs://lake/b", "gcsfs")]
    assert lacking(places, lock=BODY) == [("s3://lake/a", "s3fs"), ("gs://lake/b", "gcsfs")]


def test_when_a_lock_is_stale(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("pandas>=2\n-c limits.txt\n")
    (tmp_path / "limits.txt").write_text("numpy<3\n")
    source = read_source(file, shown="jobs/requirements.txt")
    assert [line.text for line in source.lines] == ["pandas>=2"]  # a limit asks for nothing
    assert read_lock(source) is None
    header = Header(
        inputs=inputs_hash(source.texts, extras=["yarn"], python="3.11"), python="3.11", extras=frozenset({"yarn"})
    )
    source.lock.write_text(render_lock(BODY, header))

    def fresh(*extras: str) -> bool:
        locked = read_lock(source)
        assert locked is not None
        return is_fresh(read_source(file, shown="jobs/requirements.txt"), locked, extras=frozenset(extras))

    assert fresh() and fresh("yarn")
    assert not fresh("yarn", "gs")
    file.write_text("# a comment changes nothing\n\npandas>=2 # here neither\n-c limits.txt\n")
    assert fresh("yarn")
    (tmp_path / "limits.txt").write_text("numpy<2\n")
    assert not fresh("yarn")
    (tmp_path / "limits.txt").unlink()
    with pytest.raises(InputError, match=r"jobs/limits.txt cannot be read"):
        fresh("yarn")


def test_a_file_that_includes_itself_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a\n-r requirements.txt\n")
    assert len(read_source(tmp_path / "requirements.txt", shown="r").lines) == 1


def test_a_jobs_own_requirements_come_first(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "trips").mkdir(parents=True)
    with pytest.raises(InputError, match=r"there is no jobs/trips/requirements.txt and jobs/requirements.txt: write"):
        source_of(tmp_path, "trips")
    (tmp_path / "jobs" / "requirements.txt").touch()
    assert source_of(tmp_path, "trips").shown == "jobs/requirements.txt"
    (tmp_path / "jobs" / "trips" / "requirements.txt").touch()
    assert source_of(tmp_path, "trips").shown == "jobs/trips/requirements.txt"
    assert source_of(tmp_path, "trips").lock_shown == "jobs/trips/requirements.lock"
    assert source_of(tmp_path, None).shown == "jobs/requirements.txt"


# ---------------------------------------------------------------- archives


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / "empty").mkdir(parents=True)
    (folder / "bin" / "python3.11").write_bytes(b"\x7fELF" * 3_000_000)  # more than two members
    (folder / "bin" / "python3.11").chmod(0o700)
    (folder / "bin" / "python3").symlink_to("python3.11")
    (folder / "lib" / "ü.py").write_text("x = 1\n")
    (folder / "lib" / "again.py").hardlink_to(folder / "lib" / "ü.py")
    return folder


def test_an_archive_and_back(folder: Path, tmp_path: Path) -> None:
    sha256 = archive.pack(folder, tmp_path / "a.tar.gz")
    data = (tmp_path / "a.tar.gz").read_bytes()
    assert hashlib.sha256(data).hexdigest() == sha256
    archive.unpack(io.BytesIO(data), tmp_path / "back", sha256=sha256)
    back = tmp_path / "back"
    assert (back / "bin" / "python3").readlink() == Path("python3.11")
    assert (back / "bin" / "python3").read_bytes() == (folder / "bin" / "python3.11").read_bytes()
    assert (back / "bin" / "python3.11").stat().st_mode & 0o777 == 0o755
    assert (back / "lib" / "again.py").read_text() == (back / "lib" / "ü.py").read_text() == "x = 1\n"
    assert (back / "lib" / "empty").is_dir()


def test_equal_folders_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    first = archive.pack(folder, tmp_path / "a.tar.gz")
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    (tmp_path / "copy" / "lib" / "ü.py").touch()
    assert archive.pack(tmp_path / "copy", tmp_path / "b.tar.gz") == first


def test_other_tools_read_it(folder: Path, tmp_path: Path) -> None:
    """YARN unpacks with the node's gzip and tar."""
    archive.pack(folder, tmp_path / "a.tar.gz")
    subprocess.run(["gzip", "-t", str(tmp_path / "a.tar.gz")], check=True, timeout=240)
    listed = subprocess.run(
        ["tar", "tzf", str(tmp_path / "a.tar.gz")], check=True, timeout=240, capture_output=True, text=True
    )
    assert {"bin/python3", "lib/empty/"} <= set(listed.stdout.split())


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: data[:-3], id="almost whole"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:2000] + b"\0" * 64 + data[2064:], id="a damaged block"),
        pytest.param(lambda data: data + b"more", id="more behind it"),
        pytest.param(lambda data: b"<html>not found</html>", id="something else"),
    ],
)
def test_a_damaged_archive_is_found(folder: Path, tmp_path: Path, spoil: object) -> None:
    sha256 = archive.pack(folder, tmp_path / "a.tar.gz")
    data = spoil((tmp_path / "a.tar.gz").read_bytes())  # type: ignore[operator]
    with pytest.raises(archive.Corrupted):
        archive.unpack(io.BytesIO(data), tmp_path / "back", sha256=sha256)


def test_another_archive_than_the_planned_one_is_found(folder: Path, tmp_path: Path) -> None:
    archive.pack(folder, tmp_path / "a.tar.gz")
    with pytest.raises(archive.Corrupted, match="its SHA-256 is"), (tmp_path / "a.tar.gz").open("rb") as source:
        archive.unpack(source, tmp_path / "back", sha256="0" * 64)


# ---------------------------------------------------------------- ELF


def tiny_elf(*, path: str = "", tag: int = 29) -> bytes:
    """A shared library with one needed name, a search path, and nothing to run; addresses are offsets + 0x1000."""
    strings = b"\0libc.so.6\0" + path.encode() + b"\0"
    header, table = 64, 2 * 56
    strings_at = header + table
    dynamic_at = strings_at + len(strings)
    entries = [(1, 1), (5, strings_at + 0x1000), *([(tag, 11)] if path else []), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    size = dynamic_at + len(dynamic)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0x1000, 0, size, size, 0x1000)
    dyn = struct.pack("<IIQQQQQQ", 2, 4, dynamic_at, dynamic_at + 0x1000, 0, len(dynamic), len(dynamic), 8)
    return head + load + dyn + strings + dynamic


def test_reading_and_moving_a_library() -> None:
    data = tiny_elf(path="/opt/python/3.11/lib")
    found = elf.parse(data)
    assert found is not None
    assert (found.needed, found.path) == (("libc.so.6",), "/opt/python/3.11/lib")
    moved = elf.with_path(data, "$ORIGIN/../lib")
    again = elf.parse(moved)
    assert again is not None
    assert again.path == "$ORIGIN/../lib"
    assert len(moved) == len(data)
    assert elf.parse(elf.with_path(tiny_elf(path="/a/long/path/of/old", tag=15), "$ORIGIN")) is not None


def test_what_cannot_be_moved_says_so() -> None:
    with pytest.raises(ValueError, match="no room for"):
        elf.with_path(tiny_elf(path="/lib"), "$ORIGIN/../lib")
    with pytest.raises(ValueError, match="has no search path"):
        elf.with_path(tiny_elf(), "$ORIGIN")
    assert elf.parse(b"#!/bin/sh\n") is None
    assert elf.parse(b"") is None


@pytest.mark.skipif(sys.platform != "linux", reason="ELF is Linux's")
def test_reading_this_interpreter() -> None:
    data = Path(sys.executable).resolve().read_bytes()
    found = elf.parse(data)
    assert found is not None
    assert any(name.startswith("libc.") for name in found.needed)
    assert elf.glibc_of(data) >= (2, 2)
