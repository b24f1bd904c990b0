"""The code archive: what travels of a job's folder, and that equal content has an equal name."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from mayfly.driver.environment import restore_modes, unpack_code
from mayfly.errors import InputError
from mayfly.staging.bundle import MAX_BYTES, make_bundle, upload_bundle
from mayfly.staging.stores import FileStore


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "trips"
    (folder / "shared").mkdir(parents=True)
    (folder / "trips.py").write_text("import lib.helpers\n")
    (folder / "shared" / "helpers.py").write_text("X = 1\n")
    return folder


def names(folder: Path) -> set[str]:
    """Of the files that travel of the job's folder."""
    with zipfile.ZipFile(io.BytesIO(make_bundle(folder)[1])) as archive:
        return {name.removeprefix("job/") for name in archive.namelist() if name.startswith("job/")}


ALWAYS = {"trips.py", "shared/helpers.py"}


def test_what_travels(job: Path) -> None:
    for left in ("__pycache__/trips.pyc", ".git/HEAD", "old.pyc"):
        (job / left).parent.mkdir(exist_ok=True)
        (job / left).write_text("x")
    (job / "empty").mkdir()
    os.mkfifo(job / "pipe")
    (job / "gone.txt").symlink_to("nowhere.txt")
    assert names(job) == ALWAYS


def test_links_within_the_folder_are_followed(job: Path) -> None:
    (job / "lib").symlink_to("shared")
    (job / "deep").mkdir()
    (job / "deep" / "lib").symlink_to(job / "shared")
    (job / "same.py").symlink_to("trips.py")
    assert names(job) == ALWAYS | {"lib/helpers.py", "deep/lib/helpers.py", "same.py"}


def test_a_job_folder_that_is_a_link_itself(job: Path, tmp_path: Path) -> None:
    (job / "lib").symlink_to("shared")
    (tmp_path / "jobs").symlink_to(job)
    assert names(tmp_path / "jobs") == ALWAYS | {"lib/helpers.py"}


def test_links_to_folders_elsewhere_are_not_followed_and_none_for_ever(job: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "large.csv").write_text("x")
    (job / "data").symlink_to(tmp_path / "elsewhere")
    (job / "shared" / "up").symlink_to("..")
    (job / "here").symlink_to(".")
    (job / "knot").symlink_to("knot")
    (job / "shared" / "one").mkdir()
    (job / "shared" / "two").mkdir()
    (job / "shared" / "one" / "other").symlink_to("../two")
    (job / "shared" / "two" / "other").symlink_to("../one")
    assert names(job) == ALWAYS


def test_modes_travel(job: Path, tmp_path: Path) -> None:
    (job / "shared" / "tool.sh").write_text("#!/bin/sh\n")
    (job / "shared" / "tool.sh").chmod(0o744)
    (job / "lib").symlink_to("shared")
    store = FileStore(tmp_path / "staging")
    code = unpack_code(store, upload_bundle(store, job), tmp_path / "code")
    restore_modes(code)
    programs = {path.relative_to(code).as_posix() for path in code.rglob("*") if path.is_file() and _runs(path)}
    assert programs == {"job/shared/tool.sh", "job/lib/tool.sh"}


def _runs(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o111)


def test_a_folder_without_a_list_of_programs_is_left_alone(tmp_path: Path) -> None:
    restore_modes(tmp_path)


def test_equal_content_has_an_equal_name(job: Path) -> None:
    path, data = make_bundle(job)
    os.utime(job / "trips.py", (1, 1))
    (job / "trips.py").chmod(0o600)  # who may read it is the affair of this machine
    assert make_bundle(job) == (path, data)
    (job / "trips.py").chmod(0o700)
    assert make_bundle(job)[0] != path
    (job / "trips.py").chmod(0o600)
    (job / "more").mkdir()
    assert make_bundle(job) == (path, data)
    (job / "more" / "trips.py").write_text("")
    assert make_bundle(job)[0] != path


def test_data_is_no_code(job: Path) -> None:
    with (job / "big.csv").open("wb") as file:
        file.truncate(MAX_BYTES)  # a hole: no disk is used
    with pytest.raises(InputError, match=r"put data elsewhere and name it under `inputs:`"):
        make_bundle(job)
