"""The targets that the README names, as a new user meets them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=cwd, capture_output=True, text=True, timeout=240, check=False, env=clean | environment
    )


def empty_clone(folder: Path) -> Path:
    """The files that `make` reads, without an environment."""
    folder.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    return folder


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python-of-this-test"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_make_alone_prints_every_target_and_does_nothing() -> None:
    shown = make().stdout
    for target in ("demo", "test", "check", "up", "bench", "lock", "clean"):
        assert re.search(rf"make {target} +\S", shown), shown


def test_every_target_of_the_help_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M).group(1).split())  # type: ignore[union-attr]
    assert set(re.findall(r"^([a-z-]+):", makefile, re.M)) == phony
    for script in re.findall(r"scripts/\w+\.(?:sh|py)", makefile):
        assert (ROOT / script).is_file(), script


def test_without_python_it_says_what_to_install(tmp_path: Path) -> None:
    done = make("test", "PYTHON=no-such-python", cwd=empty_clone(tmp_path / "a clone"))
    assert done.returncode == 2
    assert "no working 'no-such-python'" in done.stderr
    assert "apt install python3.11" in done.stderr


def test_an_old_python_is_named(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "echo 3.9")
    done = make("install", f"PYTHON={python}", cwd=empty_clone(tmp_path / "clone"))
    assert done.returncode == 2
    assert "is Python 3.9; the lock files are made for Python 3.11" in done.stderr


def test_a_python_without_venv_is_named(tmp_path: Path) -> None:
    python = fake_python(tmp_path, 'case "$2" in *version_info*) echo 3.11;; *) exit 1;; esac')
    done = make("install", f"PYTHON={python}", cwd=empty_clone(tmp_path / "clone"))
    assert done.returncode == 2
    assert "apt install python3.11-venv" in done.stderr


def test_an_unknown_lane_names_the_lanes() -> None:
    done = make("install", "LANE=9.9")
    assert done.returncode == 2
    assert "no lane '9.9'; there are: 3.1.8 3.3.2" in done.stderr


@pytest.mark.timeout(900)
def test_the_demo_runs_and_ends_with_what_it_took_and_the_proof(tmp_path: Path) -> None:
    """In a clone, with this environment as its own, so that nothing is to be installed."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = Path(sys.prefix)
    (clone / environment.name).symlink_to(environment)
    lane = environment.name.removeprefix(".venv").removeprefix("-") or "3.3.2"
    shown = subprocess.run(
        ["make", "--old-file", f"{environment.name}/.installed", "demo", f"LANE={lane}"],
        cwd=clone, capture_output=True, text=True, timeout=800, check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "AIRFLOW"))},
    )  # fmt: skip
    assert shown.returncode == 0, shown.stdout[-4000:] + shown.stderr[-4000:]
    lines = shown.stdout.splitlines()
    assert any(line.startswith("deletion proven") for line in lines), shown.stdout
    summary = "\n".join(lines[-10:])
    for word in ("flights: success in", "phases", "peak", "tasks", "deletion   proven at", "report"):
        assert word in summary, summary
    report = Path(next(line.split()[1] for line in lines if line.startswith("  report ")))
    assert "<html" in report.read_text()
    assert report.is_relative_to(clone)
    assert list((clone / "data" / "results" / "delays").glob("*.parquet"))
