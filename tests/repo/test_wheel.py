"""`make wheel`: an Airflow with an empty plugins folder needs nothing else; a development install has no twins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from mayfly.staging.nodefiles import make_node_files

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "plugins"


def run(*command: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run("bash", "scripts/wheel.sh", sys.prefix, str(folder), cwd=ROOT)
    (path,) = folder.glob("mayfly-*-py3-none-any.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked as pip does it, to be put before everything else on PYTHONPATH."""
    folder = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps")
    run(*pip, "--no-compile", "--target", str(folder), str(wheel), cwd=folder)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    listed = (path for path in (SOURCES / "mayfly").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    nodes = (f"mayfly/init_actions/{name}" for name in ("carrier.py", "dataproc.sh", "lib.sh"))
    assert names == {*(path.relative_to(SOURCES).as_posix() for path in listed), *nodes}


def test_an_installed_wheel_brings_what_nodes_start_with(installed: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from mayfly.staging.nodefiles import make_node_files; "
        "print([path for path, _ in make_node_files(Path())])"
    )
    shown = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert shown.strip() == str([path for path, _ in make_node_files(ROOT)])


def test_its_entry_points(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        found = ConfigParser()
        found.read_string(archive.read(name).decode())
    assert dict(found["airflow.plugins"]) == {"mayfly": "mayfly.airflow.plugin:entry_point"}
    assert dict(found["console_scripts"]) == {"mayfly": "mayfly.cli.main:main"}


def test_the_extra_for_yarn(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    assert "Provides-Extra: yarn" in lines
    assert any(line.startswith("Requires-Dist: skein==") and 'extra == "yarn"' in line for line in lines)


def test_airflow_finds_the_plugin_without_a_plugins_folder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    shown = run(
        sys.executable, "-W", "ignore", "-m", "airflow", "plugins", "--output", "json",
        cwd=tmp_path,
        PYTHONPATH=str(installed),
        AIRFLOW_HOME=str(tmp_path),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(tmp_path / "plugins"),
        AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
    )  # fmt: skip
    plugins = json.loads(shown[shown.index("[") :])
    ours = [plugin for plugin in plugins if plugin["name"] == "mayfly"]
    assert len(ours) == 1
    assert "mayfly" in str(ours[0]["source"])


def test_a_plugins_folder_beside_an_installation_registers_it_once(installed: Path, tmp_path: Path) -> None:
    """As in a development install, which has the entry point and the folder."""
    code = """
import logging; logging.disable(logging.CRITICAL)
from airflow import plugins_manager as p
found = p._get_plugins() if hasattr(p, "_get_plugins") else (p.ensure_plugins_loaded(), (p.plugins, p.import_errors))[1]
print("RESULT", [x.name for x in found[0]].count("mayfly"), dict(found[1]))
"""
    shown = run(
        sys.executable, "-W", "ignore", "-c", code,
        cwd=tmp_path,
        PYTHONPATH=str(installed),
        AIRFLOW_HOME=str(tmp_path),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(SOURCES),
    )  # fmt: skip
    assert "RESULT 1 {}" in shown
