"""The files that nodes start with: one script each, of this project's sources, under the name of their content."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mayfly.errors import InputError
from mayfly.staging.nodefiles import make_node_files, upload_node_files
from mayfly.staging.stores import FileStore

ROOT = Path(__file__).resolve().parents[2]


def test_one_script_that_needs_no_other(tmp_path: Path) -> None:
    (setup, script), (carrier, program) = make_node_files(ROOT)
    assert setup.startswith("nodes/") and setup.endswith(".sh") and carrier.endswith(".py")
    text = script.decode()
    assert text.count("#!/usr/bin/env bash") == 1 and text.startswith("#!/usr/bin/env bash")
    assert "install_environment() {" in text and 'lib.sh"\n' not in text
    subprocess.run(["bash", "-n"], input=script, check=True, timeout=240)
    assert program == (ROOT / "init_actions" / "carrier.py").read_bytes()


def test_a_project_may_bring_its_own_and_gets_another_name(tmp_path: Path) -> None:
    own = shutil.copytree(ROOT / "init_actions", tmp_path / "init_actions")
    assert make_node_files(tmp_path) == make_node_files(ROOT) == make_node_files(tmp_path / "nothing here")
    with (own / "dataproc.sh").open("a") as script:
        script.write("say more\n")
    (setup, script_), carrier = make_node_files(tmp_path)
    assert (setup, carrier) != make_node_files(ROOT)[0] and carrier == make_node_files(ROOT)[1]
    assert script_.endswith(b"say more\n")


def test_uploaded_once(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    paths = upload_node_files(store, ROOT)
    assert upload_node_files(store, ROOT) == paths
    assert store.list("nodes/") == sorted(paths)


def test_a_script_without_the_library_and_an_unknown_cloud(tmp_path: Path) -> None:
    own = shutil.copytree(ROOT / "init_actions", tmp_path / "init_actions")
    (own / "dataproc.sh").write_text("#!/usr/bin/env bash\n")
    with pytest.raises(InputError, match=r"has no line .*lib\.sh"):
        make_node_files(tmp_path)
    with pytest.raises(InputError, match=r"no azure\.sh .* Deploy the folder init_actions/"):
        make_node_files(tmp_path, cloud="azure")
