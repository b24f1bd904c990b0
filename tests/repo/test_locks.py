"""The two lanes differ in Airflow; what runs on a cluster is the same in both, and so is tested in one of them only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LOCKS = Path(__file__).resolve().parents[2] / "requirements"
ON_THE_CLUSTER = (
    "bokeh", "cloudpickle", "cryptography", "dask", "distributed", "fsspec", "grpcio", "msgpack", "numpy", "pandas",
    "protobuf", "psutil", "pyarrow", "skein", "tornado",
)  # fmt: skip


def pinned(lane: str) -> dict[str, str]:
    text = (LOCKS / f"airflow-{lane}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.M))


@pytest.mark.parametrize("package", ON_THE_CLUSTER)
def test_both_lanes_have_the_same(package: str) -> None:
    assert pinned("3.1.8")[package] == pinned("3.3.2")[package]


def test_the_driver_imports_no_airflow() -> None:
    driver = Path(__file__).resolve().parents[2] / "plugins" / "mayfly" / "driver"
    importing = re.compile(r"^\s*(import|from)\s+(airflow|mayfly\.airflow)\b", re.M)
    assert [str(path) for path in sorted(driver.rglob("*.py")) if importing.search(path.read_text())] == []
