"""docker-compose.yaml against the compose specification's own schema, and against what we promise of it.

No engine is needed, and none has run it here: see docs/operations.md.
"""

from __future__ import annotations

import importlib.util
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text()
AIRFLOW = {"init", "api-server", "scheduler", "dag-processor", "triggerer"}


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(TEXT)
    return loaded


def test_it_follows_the_compose_specification(stack: dict[str, Any]) -> None:
    vendored = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendored.read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(stack)


def test_it_is_the_whole_stack(stack: dict[str, Any]) -> None:
    assert set(stack["services"]) == {"postgres", *AIRFLOW}
    for name in AIRFLOW - {"init"}:
        assert stack["services"][name]["command"][:2] == ["airflow", name]
        assert stack["services"][name]["depends_on"]["init"]["condition"] == "service_completed_successfully"


def test_nothing_listens_beyond_loopback(stack: dict[str, Any]) -> None:
    ports = [port for service in stack["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    assert not any(service.get("network_mode") == "host" for service in stack["services"].values())


def test_no_secret_is_written_down(stack: dict[str, Any]) -> None:
    for service in stack["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD$|SECRET|KEY", name):
                assert re.fullmatch(r"\$\{\w+:\?run: make compose-env\}", value), name


def test_make_writes_all_that_is_asked_for(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("compose_env", ROOT / "scripts" / "compose_env.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path / ".env"
    assert module.main(path) == 0
    first = path.read_text()
    written = dict(line.split("=", 1) for line in first.splitlines() if not line.startswith("#"))
    assert set(written) == set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert all(re.fullmatch(r"[\w=-]{16,}", value) for value in written.values())
    assert path.stat().st_mode & 0o077 == 0
    assert module.main(path) == 0
    assert path.read_text() == first, "the database keeps the password it was made with"


def test_it_mounts_what_exists_and_installs_what_is_locked(stack: dict[str, Any]) -> None:
    named = set(stack["volumes"])
    for service in stack["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in named or (ROOT / source).is_dir(), mount
    dockerfile = stack["services"]["scheduler"]["build"]["dockerfile_inline"]
    for copied in re.findall(r"requirements/\S+\.lock", dockerfile):
        assert (ROOT / "requirements" / Path(copied).name).is_file()
    version = re.search(r"^apache-airflow==(\S+)", (ROOT / "requirements/compose.lock").read_text(), re.M)
    assert version and stack["services"]["scheduler"]["image"].endswith(f":{version.group(1)}")


def test_local_clusters_stay_findable(stack: dict[str, Any]) -> None:
    """An entry names the host that made it, and lies where a new container finds it again."""
    assert stack["services"]["scheduler"]["hostname"]
    for name in AIRFLOW - {"init"}:
        targets = {mount.split(":")[1] for mount in stack["services"][name]["volumes"]}
        assert {"/opt/mayfly/.mayfly", stack["services"][name]["environment"]["MAYFLY_STATE_DIR"]} <= targets
