"""`mayfly env`: real uv, real packs, and an index that is a folder of tiny wheels, so that no network is needed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.environments.interpreter import make_interpreter
from mayfly.environments.packing import Built, envs_folder, read_built
from mayfly.environments.sources import read_lock, source_of
from tests.cli.conftest import JOB, Cli

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TARGETS = """
targets:
  local: {backend: local}
  edge: {backend: local, launcher: yarn}
  own-python: {backend: local, launcher: yarn, python: /opt/python/bin/python3}
"""
ANY_TARGET = "target: edge\ntargets: [local, edge, own-python]\n"
PACKAGES = {
    "dask": ("2026.8.0", ['distributed==2026.8.0; extra == "distributed"', 'tinypandas>=2; extra == "dataframe"']),
    "distributed": ("2026.8.0", []),
    "bokeh": ("3.9.2", []),
    "pyarrow": ("26.0.1", []),
    "psutil": ("7.2.2", []),
    "cryptography": ("50.0.2", []),
    "fsspec": ("2026.9.0", []),
    "skein": ("0.8.2", []),
    "tinypandas": ("3.0", []),
    "setuptools": ("84.0", []),
    "hello": ("1.0", []),
}

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64", reason="packs are proven on the nodes' platform only"
    ),
    pytest.mark.timeout(900),  # a pack is made
]


def wheel(folder: Path, name: str, version: str, requires: list[str]) -> None:
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Provides-Extra: {extra}" for extra in ("dataframe", "distributed")]
    metadata += [f"Requires-Dist: {line}" for line in requires]
    files = {
        f"{name}/__init__.py": "import sys\ndef main(): print('hello from', sys.prefix)\n",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if name == "hello":
        files[f"{info}/entry_points.txt"] = "[console_scripts]\nhello = hello:main\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


class EnvCli(Cli):
    """Whose uv knows nothing but a folder of wheels, and cannot download a Python."""

    wheels: Path
    more: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        ours = {"UV_CONFIG_FILE": str(self.wheels.parent / "uv.toml"), "UV_PYTHON_DOWNLOADS": "never"}
        inherited = {key: value for key, value in super().environment.items() if not key.startswith("UV_")}
        return inherited | ours | {"UV_CACHE_DIR": str(self.wheels.parent / "uv cache")} | self.more

    def add_requirements(self, text: str, job: str = "") -> Path:
        path = self.home / "jobs" / job / "requirements.txt"
        path.write_text(text)
        return path

    def built(self) -> list[Built]:
        folder = envs_folder(self.home)
        found = [read_built(folder, path.stem) for path in sorted(folder.glob("*.json"))]
        return [one for one in found if one is not None]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "wheels"
    folder.mkdir()
    (folder.parent / "uv.toml").write_text(f'no-index = true\nfind-links = ["{folder}"]\n')
    for name, (version, requires) in PACKAGES.items():
        wheel(folder, name, version, requires)
    wheel(folder, "tinypandas", "1.0", [])
    return folder


def make_cli(folder: Path, wheels: Path) -> EnvCli:
    home = folder / "my project ü"
    (home / "config").mkdir(parents=True)
    (home / "config" / "targets.yaml").write_text(TARGETS)
    for name in ("trips", "other"):
        (home / "jobs" / name).mkdir(parents=True)
        (home / "jobs" / name / "job.yaml").write_text(JOB + ANY_TARGET)
        (home / "jobs" / name / f"{name}.py").write_text("print('x')\n")
    cli = EnvCli(home=home, state=folder / "state")
    cli.wheels, cli.more = wheels, {}
    return cli


@pytest.fixture
def fresh(tmp_path: Path, wheels: Path) -> EnvCli:
    """A project with two jobs and nothing built."""
    return make_cli(tmp_path, wheels)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[EnvCli]:
    """A project whose `jobs/requirements.txt` is locked and packed; for looking only."""
    cli = make_cli(tmp_path_factory.mktemp("packed"), wheels)
    cli.add_requirements("hello\n")
    done = cli("env", "build", "trips", "--target", "edge", "--interpreter", "copy", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (cli.home / "said.txt").write_text(done.stdout)
    yield cli
    shutil.rmtree(cli.home)


@pytest.fixture
def project(packed: EnvCli, tmp_path: Path) -> EnvCli:
    """A copy of `packed`, for changing."""
    copy = EnvCli(home=tmp_path / "copy", state=tmp_path / "state")
    shutil.copytree(packed.home, copy.home)
    copy.wheels, copy.more = packed.wheels, {}
    return copy


def test_build_says_what_it_made(packed: EnvCli) -> None:
    said = (packed.home / "said.txt").read_text()
    (built,) = packed.built()
    assert f"jobs/requirements.lock: {len(built.packages)} packages" in said
    assert {*PACKAGES} - {"setuptools"} == {*built.packages} - {"setuptools"}  # skein needs it from Python 3.12 on
    assert f"Python {platform.python_version()}, copy of " in said
    assert f"archive      .mayfly/envs/{built.key}.tar.gz: " in said
    assert "nodes need glibc 2." in said
    assert built.packages["dask"] == "2026.8.0"
    assert built.python == platform.python_version()
    assert built.requirements == "jobs/requirements.txt"


def test_the_lock_holds_hashes_and_no_address(packed: EnvCli) -> None:
    text = (packed.home / "jobs" / "requirements.lock").read_text()
    assert text.count("--hash=sha256:") == text.count("==")
    assert "hello==1.0" in text and "skein==0.8.2" in text
    assert str(packed.wheels) not in text and "://" not in text
    locked = read_lock(source_of(packed.home, "trips"))
    assert locked is not None
    assert (locked.header.python, locked.header.extras) == (PYTHON, {"yarn"})


def test_the_pack_runs_from_any_path_and_owes_this_machine_nothing(packed: EnvCli, tmp_path: Path) -> None:
    (built,) = packed.built()
    folder = tmp_path / "an other path ü"
    with tarfile.open(envs_folder(packed.home) / f"{built.key}.tar.gz") as tar:
        names = tar.getnames()
        tar.extractall(folder, filter="tar")
    code = (
        "import os, sys, json, ssl, dask, distributed, skein, hello, multiprocessing.spawn as spawn;"
        "maps = {line.split(None, 5)[-1].strip() for line in open('/proc/self/maps')};"
        "said = [sys.prefix, sys.base_prefix, dask.__file__, dask.__cached__, os.fsdecode(spawn.get_executable())];"
        "print(json.dumps([*said, sorted(maps)]))"
    )
    done = subprocess.run(
        [str(folder / "bin" / "python3"), "-c", code], env={}, cwd="/", capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    prefix, base, file, cached, executable, maps = json.loads(done.stdout)
    assert prefix == base == str(folder)
    assert file.startswith(str(folder))
    assert Path(cached).exists()  # byte code travels
    assert executable.startswith(str(folder))
    assert not [path for path in maps if path.startswith((sys.base_prefix + "/", sys.prefix + "/"))]
    assert not [name for name in names if "/test/" in name or "idlelib" in name or name.endswith(".a")]
    hello = subprocess.run([str(folder / "bin" / "hello")], capture_output=True, text=True, timeout=240, check=True)
    assert hello.stdout == f"hello from {folder}\n"


def test_byte_code_is_used_whatever_the_times_of_the_files(packed: EnvCli, tmp_path: Path) -> None:
    (built,) = packed.built()
    with tarfile.open(envs_folder(packed.home) / f"{built.key}.tar.gz") as tar:
        tar.extractall(tmp_path, filter="tar")
    for path in (tmp_path / "lib" / f"python{PYTHON}" / "site-packages").rglob("*.py"):
        path.touch()
    done = subprocess.run(
        [str(tmp_path / "bin" / "python3"), "-v", "-c", "import dask, hello"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "wrote" not in done.stderr
    assert "code object from" not in "".join(line for line in done.stderr.splitlines() if ".py'" in line)


def test_a_second_build_does_nothing(packed: EnvCli) -> None:
    done = packed("env", "build", "--target", "edge")
    assert "up to date" in done.stdout
    assert "built already" in done.stdout
    assert done.returncode == 0


def test_an_interpreter_that_is_insisted_on_and_cannot_be_had(packed: EnvCli) -> None:
    """What is built has another one: that stays, and is not passed off as what was asked for."""
    refused = packed("env", "build", "--target", "edge", "--interpreter", "uv")
    assert refused.returncode == 2
    assert f"uv could not bring Python {PYTHON} for x86_64 Linux: " in refused.stderr
    assert packed.built()[0].interpreter.startswith("copy of ")
    assert "built already" in packed("env", "build", "--target", "edge", "--interpreter", "copy").stdout


def test_ls_and_plan_and_upload(project: EnvCli) -> None:
    (built,) = project.built()
    listed = project("env", "ls")
    (row,) = [line for line in listed.stdout.splitlines() if line.startswith(built.key)]
    assert "other, trips" in row and row.rstrip().endswith("here")

    planned = project("plan", "trips", "--target", "edge")
    assert planned.returncode == 0, planned.stderr
    (line,) = [line for line in planned.stdout.splitlines() if line.startswith("packages")]
    assert f"environment {built.key}, Python {built.python}" in line
    assert line.endswith("MB; to be uploaded, about 1 s")
    assert not (project.home / ".mayfly" / "staging" / "envs").exists()  # a preview makes nothing

    sent = project("env", "build", "trips", "--target", "edge", "--upload")
    assert "uploaded in " in sent.stdout
    again = project("env", "build", "trips", "--target", "edge", "--upload")
    assert "uploaded" not in again.stdout and "in the store already" in again.stdout
    assert "in the store already" in project("plan", "trips", "--target", "edge").stdout
    assert project("env", "ls").stdout.rstrip().endswith("here, edge")
    # What is in the store serves everybody: whoever plans needs no archive of their own.
    removed = project("env", "rm", built.key[:6])
    assert removed.returncode == 0 and project.built() == []
    assert "in the store already" in project("plan", "trips", "--target", "edge").stdout
    gone = project("env", "rm", built.key, "--target", "edge")
    assert gone.returncode == 0
    assert list((project.home / ".mayfly" / "staging" / "envs").iterdir()) == []
    missing = project("plan", "trips", "--target", "edge")
    assert missing.returncode == 2
    assert "is neither in" in missing.stderr and "mayfly env build trips --target edge" in missing.stderr
    assert project("env", "ls").stdout.rstrip().endswith("not built")


def test_ls_of_what_is_left_when_a_target_cannot_be_asked(project: EnvCli) -> None:
    (built,) = project.built()
    targets = project.home / "config" / "targets.yaml"
    targets.write_text(f"{TARGETS}  aaa: {{backend: local, launcher: yarn, staging: nowhere://bucket}}\n")
    listed = project("env", "ls")
    assert listed.returncode == 1
    assert "target aaa: staging 'nowhere://bucket' cannot be used" in listed.stdout, listed.stderr
    (row,) = [line for line in listed.stdout.splitlines() if line.startswith(built.key)]
    assert row.rstrip().endswith("here")


def test_a_target_that_needs_none(packed: EnvCli) -> None:
    for name in ("local", "own-python"):
        planned = packed("plan", "trips", "--target", name)
        assert planned.returncode == 0, planned.stderr
        assert "packages " not in planned.stdout
        refused = packed("env", "build", "trips", "--target", name)
        assert refused.returncode == 2
        assert f"target '{name}' needs no environment: " in refused.stderr


def test_what_must_be_done_first_is_said(project: EnvCli) -> None:
    command = "mayfly env build trips --target edge"
    requirements = project.home / "jobs" / "requirements.txt"
    requirements.write_text("hello\ntinypandas\n")
    stale = project("plan", "trips", "--target", "edge")
    assert stale.returncode == 2
    assert "jobs/requirements.lock is not what jobs/requirements.txt" in stale.stderr and command in stale.stderr
    (project.home / "jobs" / "requirements.lock").unlink()
    unlocked = project("plan", "trips", "--target", "edge")
    assert "jobs/requirements.txt is not locked yet" in unlocked.stderr and command in unlocked.stderr
    requirements.unlink()
    nothing = project("plan", "trips", "--target", "edge")
    assert "there is no jobs/trips/requirements.txt and jobs/requirements.txt" in nothing.stderr
    assert command in nothing.stderr


def test_a_damaged_archive_in_the_store(project: EnvCli) -> None:
    project("env", "build", "trips", "--target", "edge", "--upload")
    (built,) = project.built()
    path = project.home / ".mayfly" / "staging" / built.path
    os.truncate(path, built.bytes // 2)
    damaged = project("plan", "trips", "--target", "edge")
    assert damaged.returncode == 2
    assert "it is damaged" in damaged.stderr
    assert f"mayfly env rm {built.key} --target edge" in damaged.stderr
    path.unlink()  # and when it is gone altogether, it is sent again
    assert "to be uploaded" in project("plan", "trips", "--target", "edge").stdout
    assert "uploaded in" in project("env", "build", "trips", "--target", "edge", "--upload").stdout


def test_a_conflict_names_both_sides(fresh: EnvCli) -> None:
    fresh.add_requirements("hello\ndask<2025\n", job="trips")
    done = fresh("env", "build", "trips", "--target", "edge")
    assert done.returncode == 2
    assert "jobs/trips/requirements.txt:2 asks dask<2025, Mayfly needs dask>=2026.8" in done.stderr
    assert not (fresh.home / "jobs" / "trips" / "requirements.lock").exists()


def test_a_conflict_further_down_is_uvs_to_explain(fresh: EnvCli) -> None:
    fresh.add_requirements("tinypandas<2\n")
    done = fresh("env", "build", "--target", "edge")
    assert done.returncode == 2
    assert "jobs/requirements.txt cannot be resolved together with what Mayfly needs (dask[" in done.stderr
    assert "tinypandas>=2" in done.stderr or "tinypandas<2" in done.stderr
    assert "requirements are unsatisfiable" in done.stderr
    assert len(done.stderr.splitlines()) < 20


def test_an_unknown_package(fresh: EnvCli) -> None:
    fresh.add_requirements("no-such-package-at-all\n")
    done = fresh("env", "build", "--target", "edge")
    assert done.returncode == 2
    assert "no-such-package-at-all was not found" in done.stderr
    assert len(done.stderr.splitlines()) < 20


def test_bad_options(fresh: EnvCli) -> None:
    fresh.add_requirements("")
    assert "write it as 3.11" in fresh("env", "build", "--python", "py311").stderr
    assert "no job 'tripz'" in fresh("env", "build", "tripz").stderr
    assert "no environment begins with 'abc'" in fresh("env", "rm", "abc").stderr
    other = "3.12" if PYTHON != "3.12" else "3.13"
    done = fresh("env", "build", "--target", "edge", "--python", other)
    assert done.returncode == 2
    assert f"uv could not bring Python {other} for x86_64 Linux: " in done.stderr
    assert "cannot stand in for it" in done.stderr
    assert list(envs_folder(fresh.home).glob(".new-*")) == []


def test_without_uv(fresh: EnvCli, tmp_path: Path) -> None:
    fresh.add_requirements("")
    lonely = tmp_path / "bin"
    lonely.mkdir()
    (lonely / "python").symlink_to(sys.executable)
    code = (
        "import sys; sys.executable = sys.argv.pop(1); from mayfly.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(lonely / "python"), "env", "build", "--target", "edge"],
        env=fresh.environment | {"PATH": str(lonely)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2
    assert "uv is not here" in done.stderr and "pip install uv" in done.stderr


def test_a_python_that_uv_brings(fresh: EnvCli, tmp_path: Path) -> None:
    """As on every machine that reaches the downloads: here the download is a folder."""
    origin = tmp_path / "python"
    (tmp_path / "cache").mkdir()
    made = make_interpreter(origin, python=PYTHON, cache=tmp_path / "cache", source="copy")
    for extra in ("share/man", "include/python", "lib/tcl8.6", "lib/pkgconfig"):
        (origin / extra).mkdir(parents=True)
    with tarfile.open(tmp_path / "python.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(origin, "python")
    major, minor, patch = made.python.split(".")
    name = f"cpython-{made.python}-linux-x86_64-gnu"
    known = {"name": "cpython", "arch": {"family": "x86_64", "variant": None}, "os": "linux", "libc": "gnu"}
    known |= {"major": int(major), "minor": int(minor), "patch": int(patch), "prerelease": "", "variant": None}
    known |= {"url": f"file://{tmp_path}/python.tar.gz", "sha256": None, "build": "20260101"}
    (tmp_path / "downloads.json").write_text(json.dumps({name: known}))
    fresh.more = {
        "UV_PYTHON_DOWNLOADS_JSON_URL": str(tmp_path / "downloads.json"),
        "UV_PYTHON_DOWNLOADS": "automatic",
    }
    fresh.add_requirements("")
    done = fresh("env", "build", "--target", "edge", "--interpreter", "uv", timeout=600)
    assert done.returncode == 0, done.stderr
    assert f"interpreter  Python {made.python}, uv\n" in done.stdout
    (built,) = fresh.built()
    with tarfile.open(envs_folder(fresh.home) / f"{built.key}.tar.gz") as tar:
        top = {name.split("/")[0] for name in tar.getnames()}
        assert "bin/python3" in tar.getnames()
        assert not [name for name in tar.getnames() if name.startswith(("lib/tcl", "lib/pkgconfig"))]
    assert {"bin", "lib"} <= top <= {"bin", "lib", "BUILD"}

    # The other one instead; but runs go on with what is in their store, and that is not passed over.
    assert fresh("env", "build", "trips", "--target", "edge", "--upload").returncode == 0
    refused = fresh("env", "build", "trips", "--target", "edge", "--interpreter", "copy", "--upload", timeout=600)
    (copied,) = fresh.built()
    assert (copied.key, copied.interpreter.split()[0]) == (built.key, "copy")
    assert refused.returncode == 2
    assert f"has environment {built.key} with another interpreter (uv)" in refused.stderr
    assert f"mayfly env rm {built.key} --target edge" in refused.stderr
    assert fresh("env", "rm", built.key, "--target", "edge").returncode == 0
    sent = fresh("env", "build", "trips", "--target", "edge", "--interpreter", "copy", "--upload")
    assert "built already" in sent.stdout and "uploaded in " in sent.stdout
