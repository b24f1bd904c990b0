"""CI runs in one lane only what cannot depend on the other lane's Airflow: here is why that is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALONE = re.findall(r"^only_(?:first|second)=\((.*)\)$", (ROOT / ".ci" / "run").read_text(), re.M)
FIRST, SECOND = (folders.split() for folders in ALONE)
THEIRS = (
    "bokeh", "cloudpickle", "cryptography", "dask", "distributed", "fsspec", "gcsfs", "google-api-core", "google-auth",
    "google-cloud-dataproc", "google-cloud-storage", "grpcio", "jinja2", "msgpack", "numpy", "packaging", "pandas",
    "protobuf", "psutil", "pyarrow", "pydantic", "pyyaml", "skein", "tornado",
)  # fmt: skip


def pinned(lane: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"airflow-{lane}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.M))


@pytest.mark.parametrize("package", THEIRS)
def test_both_lanes_have_the_same(package: str) -> None:
    assert pinned("3.1.8")[package] == pinned("3.3.2")[package]


def test_no_folder_is_left_out_of_both_lanes() -> None:
    assert not set(FIRST) & set(SECOND)


@pytest.mark.parametrize(
    "folder", [*FIRST, *SECOND, "plugins/mayfly/driver", "plugins/mayfly/backends", "plugins/mayfly/yarn"]
)
def test_what_runs_once_knows_no_airflow(folder: str) -> None:
    importing = re.compile(r"^\s*(import|from)\s+(airflow|mayfly\.airflow)\b", re.M)
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert [str(path) for path in files if importing.search(path.read_text())] == []
