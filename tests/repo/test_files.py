"""What every tracked file must keep to: nothing of one machine, nothing unpinned, nothing dead."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
BINARY = {".png", ".gz", ".zip", ".parquet"}
# A character class around one character each, so that this file does not find itself.
MACHINE_PATHS = re.compile(r"(?<![\w.])[/](work|root|Users)[/]|(?<![\w.])[/]tmp[/][a-z0-9]")
REGISTRIES = re.compile(r"pypi[.]org/simple|pythonhosted[.]org|artifactor[y]|--index[-]url|--find[-]links")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    return [(path.relative_to(ROOT).as_posix(), path.read_text()) for path in tracked() if path.suffix not in BINARY]


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_file_names_a_package_index() -> None:
    allowed = {"scripts/install.sh", "requirements/lock.sh"}  # they read the user's own setting
    found = [name for name, text in texts() if name not in allowed and REGISTRIES.search(text)]
    assert not found


def test_every_locked_package_has_one_version_and_hashes() -> None:
    assert len(LOCKS) == 4
    for lock in LOCKS:
        entries = re.split(r"\n(?=\S)", lock.read_text().strip())
        packages = [entry for entry in entries if not entry.startswith("#")]
        assert packages, lock.name
        for entry in packages:
            assert re.match(r"[a-zA-Z0-9._-]+==[^\s;]+", entry), f"{lock.name}: not pinned: {entry[:80]}"
            assert "--hash=sha256:" in entry, f"{lock.name}: no hash: {entry[:80]}"


def test_the_lanes_hold_their_airflow_and_differ_in_nothing_we_ask_for_ourselves() -> None:
    def versions(name: str) -> dict[str, str]:
        return dict(
            re.findall(r"^([a-zA-Z0-9._-]+)==([^\s;]+)", (ROOT / f"requirements/{name}.lock").read_text(), re.M)
        )

    new, old, image, boot = (versions(n) for n in ("airflow-3.3.2", "airflow-3.1.8", "compose", "bootstrap"))
    assert (new["apache-airflow"], old["apache-airflow"]) == ("3.3.2", "3.1.8")
    asked = set(re.findall(r"^([a-z0-9-]+)", (ROOT / "requirements.txt").read_text(), re.M)) - {"apache-airflow"}
    assert {name: new[name] for name in asked} == {name: old[name] for name in asked}
    assert {name: image[name] for name in asked} == {name: new[name] for name in asked}
    assert boot["setuptools"] == new["setuptools"] == old["setuptools"]


def test_the_layout_that_users_were_told() -> None:
    for folder in ("dags", "plugins", "jobs", "config", "init_actions", "tests", "benchmarks", "docs"):
        assert (ROOT / folder).is_dir(), folder
    for page in ("architecture", "jobs", "targets", "operations"):
        assert (ROOT / f"docs/{page}.md").is_file(), page
    for file in ("README.md", "CHANGELOG.md", "Makefile", "docker-compose.yaml", "requirements.txt", ".ci/run"):
        assert (ROOT / file).is_file(), file


def test_links_in_the_documents_lead_somewhere() -> None:
    broken = []
    for path in tracked():
        if path.suffix != ".md":
            continue
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
            if "://" not in link and not (path.parent / link).exists():
                broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert not broken


@pytest.mark.parametrize("name", ["dags/.airflowignore", "plugins/.airflowignore"])
def test_airflow_is_told_what_not_to_read(name: str) -> None:
    assert (ROOT / name).read_text().strip()


def test_scripts_can_be_run() -> None:
    for path in tracked():
        with path.open("rb") as file:
            first = file.readline()
        if first.startswith(b"#!") and path.suffix in ("", ".sh"):
            assert os.access(path, os.X_OK), f"{path.relative_to(ROOT)}: chmod +x"


def test_data_files_of_the_package_travel_with_it() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    found = [path for path in tracked() if path.is_relative_to(ROOT / "plugins/mayfly") and path.suffix != ".py"]
    assert found
    assert [path for path in found if not any(path.match(pattern) for pattern in patterns)] == []
