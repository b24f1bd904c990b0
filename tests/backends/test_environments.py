"""Environments on this machine: unpacked once, checked, whole or not at all; the driver runs in them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mayfly.backends.local import LocalBackend
from mayfly.backends.unpacking import KEEP_DAYS, unpacked_environment, whole_folder
from mayfly.contract import Environment, FrozenTarget, JobOrder, Plan
from mayfly.environments import archive
from mayfly.errors import BackendError
from mayfly.staging.stores import FileStore
from mayfly.states import ClusterState, JobState
from tests.backends.conformance import PATIENCE, make_order, make_plan, starts, wait_for

pytestmark = pytest.mark.timeout(900)
# A pack as small as can be: it leaves a mark, and is this interpreter.
INTERPRETER = f"""#!/bin/sh
export IN_THE_PACK="$0"
exec "{sys.executable}" "$@"
"""


@pytest.fixture
def target(tmp_path: Path) -> FrozenTarget:
    return FrozenTarget(
        name="edge",
        backend="local",
        launcher="processes",
        staging=f"file://{tmp_path}/staging",
        options={"state_dir": str(tmp_path / "state")},
    )


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "staging")


@pytest.fixture
def environment(tmp_path: Path, store: FileStore) -> Environment:
    folder = tmp_path / "made"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python3").write_text(INTERPRETER)
    (folder / "bin" / "python3").chmod(0o755)
    (folder / "lib").mkdir()
    (folder / "lib" / "much").write_bytes(os.urandom(3_000_000))
    packed = tmp_path / "packed"
    sha256 = archive.pack(folder, packed)
    path = f"envs/abc-{sha256[:8]}.tar.gz"
    assert store.create_file(path, packed)
    return Environment(path=path, sha256=sha256, bytes=packed.stat().st_size, python="3.11.7")


@pytest.fixture
def running(target: FrozenTarget) -> Iterator[tuple[LocalBackend, Plan]]:
    backend, plan = LocalBackend(target), make_plan(target)
    backend.create(plan)
    yield backend, plan
    wait_for(lambda: backend.delete(plan.name, owner=plan.owner).state is ClusterState.ABSENT, what="deleted")


def submit(running: tuple[LocalBackend, Plan], environment: Environment, *, job: str = "run_job") -> JobOrder:
    backend, plan = running
    order, rundir = make_order(backend.target, plan, job=job)
    order = replace(order, environment=environment)
    backend.submit(order, rundir=rundir)
    return order


def envs(tmp_path: Path) -> list[str]:
    folder = tmp_path / "state" / "envs"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def test_the_driver_runs_in_its_environment(
    running: tuple[LocalBackend, Plan], environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/somewhere/else")
    backend, _ = running
    order = submit(running, environment)
    wait_for(lambda: bool(starts(backend.target, order)), what="driver started")
    (pid,) = starts(backend.target, order)
    sees = psutil.Process(int(pid)).environ()
    folder = tmp_path / "state" / "envs" / environment.path.removeprefix("envs/").removesuffix(".tar.gz")
    assert sees["IN_THE_PACK"] == str(folder / "bin" / "python3")
    assert sees["PATH"].split(os.pathsep)[0] == str(folder / "bin")
    assert sees["PYTHONNOUSERSITE"] == "1" and "PYTHONHOME" not in sees


def test_it_is_unpacked_once_a_machine(
    running: tuple[LocalBackend, Plan], environment: Environment, tmp_path: Path, store: FileStore
) -> None:
    submit(running, environment)
    (name,) = envs(tmp_path)
    store.remove(environment.path)
    backend, _ = running
    order = submit(running, environment, job="second")
    wait_for(lambda: bool(starts(backend.target, order)), what="driver started")
    assert envs(tmp_path) == [name]


@pytest.mark.parametrize("keep", [0.5, 0.999, 0.0])
def test_a_half_uploaded_archive(
    running: tuple[LocalBackend, Plan], environment: Environment, tmp_path: Path, store: FileStore, keep: float
) -> None:
    path = store.root / environment.path
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(BackendError, match=r"is damaged \(.*mayfly env rm abc --target"):
        submit(running, environment)
    assert envs(tmp_path) == []
    backend, plan = running
    assert backend.poll(make_order(backend.target, plan)[0]).state is JobState.NEVER_STARTED
    path.write_bytes(whole)
    submit(running, environment)
    assert len(envs(tmp_path)) == 1


def test_another_archive_under_the_same_name(
    running: tuple[LocalBackend, Plan], environment: Environment, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match="its SHA-256 is"):
        submit(running, replace(environment, sha256="0" * 64))
    assert envs(tmp_path) == []


def test_an_archive_that_is_gone(
    running: tuple[LocalBackend, Plan], environment: Environment, store: FileStore
) -> None:
    store.remove(environment.path)
    with pytest.raises(BackendError, match=r"abc-.*is missing; clear the run to plan anew"):
        submit(running, environment)


def test_a_full_disk(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "first").write_text("some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BackendError, match=r"no room to unpack in .* MB free.*MAYFLY_STATE_DIR"):
        whole_folder(tmp_path / "envs" / "abc", fill)
    assert list((tmp_path / "envs").iterdir()) == []


def test_a_state_folder_that_cannot_be_written(tmp_path: Path, environment: Environment, store: FileStore) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="cannot write"):
        unpacked_environment(environment, store=store, root=tmp_path / "file" / "envs")


def test_many_at_once(environment: Environment, store: FileStore, tmp_path: Path) -> None:
    root = tmp_path / "envs"
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(unpacked_environment, environment, store=store, root=root) for _ in range(8)]
    (folder,) = {future.result() for future in asked}
    assert (folder / "bin" / "python3").exists()
    assert [path for path in root.iterdir() if path.is_dir()] == [folder]


def test_one_that_was_killed_in_mid_unpacking_leaves_no_half(
    environment: Environment, store: FileStore, tmp_path: Path
) -> None:
    root = tmp_path / "envs"
    code = (
        "import os, pathlib, sys; from mayfly.backends.unpacking import whole_folder\n"
        "def fill(folder): (folder / 'half').touch(); os.kill(os.getpid(), 9)\n"
        "whole_folder(pathlib.Path(sys.argv[1]), fill)"
    )
    name = environment.path.removeprefix("envs/").removesuffix(".tar.gz")
    killed = subprocess.run([sys.executable, "-c", code, str(root / name)], timeout=PATIENCE, check=False)
    assert killed.returncode == -9
    folder = unpacked_environment(environment, store=store, root=root)
    assert not (folder / "half").exists() and (folder / "lib" / "much").exists()
    (left,) = [path for path in root.iterdir() if path.name.startswith(".new-")]
    long_ago = time.time() - 2 * 86400
    os.utime(left, (long_ago, long_ago))
    unpacked_environment(environment, store=store, root=root)
    assert not left.exists()


def test_old_ones_go_unless_something_runs_from_them(
    environment: Environment, store: FileStore, tmp_path: Path
) -> None:
    root = tmp_path / "envs"
    long_ago = time.time() - (KEEP_DAYS + 1) * 86400
    for name in ("idle", "busy", "young"):
        (root / name / "bin").mkdir(parents=True)
        (root / f"{name}.used").touch()
        if name != "young":
            os.utime(root / f"{name}.used", (long_ago, long_ago))
    program = root / "busy" / "bin" / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "600"]) as busy:
        try:
            unpacked_environment(environment, store=store, root=root)
            left = {path.name for path in root.iterdir() if path.is_dir()}
            assert left >= {"busy", "young"} and "idle" not in left
        finally:
            busy.kill()
    unpacked_environment(environment, store=store, root=root)
    assert not (root / "busy").exists()
