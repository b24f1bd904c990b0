"""The pages for people name every key, with the default that is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mayfly.gcp.spec import TargetGcp
from mayfly.project.loading import Project
from mayfly.spec.job import JobFile
from mayfly.spec.schemas import json_schema
from mayfly.spec.target import TargetFile, TimingSpec
from mayfly.spec.yarn import TargetYarn
from mayfly.units import parse_duration

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str) -> dict[str, str]:
    """First cell (without code marks) and second cell of every table row."""
    found = re.findall(r"^\| `([^`]+)` \|([^|]*)\|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {key: default.strip() for key, default in found}


def leaves(schema: dict[str, Any], node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and defaults; models inside `cluster` are followed."""
    result: dict[str, Any] = {}
    for name, field in node["properties"].items():
        if name in ("cluster", "worker", "yarn"):
            inner = schema["$defs"][field["$ref"].rpartition("/")[2]]
            result |= leaves(schema, inner, f"{prefix}{name}.")
        else:
            result[prefix + name] = field.get("default")
    return result


def test_every_key_of_a_job_is_explained() -> None:
    schema = json_schema(JobFile, title="t")
    expected = leaves(schema, schema)
    documented = rows("jobs.md")
    assert set(expected) <= set(documented)
    for key, default in expected.items():
        if default not in (None, True, False):
            assert documented[key] == f"`{default}`", key


def test_the_profiles_are_as_the_page_says() -> None:
    documented = re.findall(
        r"^\| `([a-z-]+)` \|[^|]*\| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$",
        (DOCS / "yarn.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    expected = []
    for name, profile in Project(DOCS.parent).profiles().items():
        settings: Any = profile.dask["distributed"]
        adaptive = settings["adaptive"]
        idle = adaptive["wait-count"] * parse_duration(adaptive["interval"])
        size = f"{profile.worker.cores} cores / {(profile.worker.memory or 0) / 1e9:g} GB"
        start = profile.start_timeout or 0
        expected.append((name, str(profile.workers), size, f"{idle / 60:g} min", f"{start / 60:g} min"))
    assert documented == expected


def test_no_key_is_explained_that_does_not_exist() -> None:
    text = (DOCS / "jobs.md").read_text(encoding="utf-8")
    table = text.split("## job.yaml")[1].split("**Names.**")[0]
    documented = set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE))
    schema = json_schema(JobFile, title="t")
    assert documented == set(leaves(schema, schema))


@pytest.mark.parametrize("model", [TargetFile, TimingSpec, TargetYarn])
def test_every_key_of_a_target_is_explained(model: Any) -> None:
    assert set(model.model_fields) <= set(rows("targets.md"))


def test_every_key_of_gcp_is_explained() -> None:
    assert set(TargetGcp.model_fields) <= set(rows("gcp.md"))


@pytest.mark.parametrize("page", ["jobs.md", "targets.md", "yarn.md"])
def test_examples_on_the_pages_are_right(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        home = tmp_path / str(number)
        (home / "jobs" / "trips").mkdir(parents=True)
        (home / "jobs" / "trips" / "trips.py").write_text("print(1)\n")
        (home / "config").mkdir()
        data = yaml.safe_load(block)
        path = next((f"config/{kind}.yaml" for kind in ("targets", "profiles") if kind in data), "jobs/trips/job.yaml")
        (home / "config" / "profiles.yaml").write_text((DOCS.parent / "config" / "profiles.yaml").read_text())
        target = next(iter(data["targets"])) if "targets" in path else "local"
        (home / "jobs" / "trips" / "job.yaml").write_text(f"target: {target}\n")
        (home / path).write_text(block)
        good, errors = Project(home).jobs()
        assert errors == []
        assert list(good) == ["trips"]
