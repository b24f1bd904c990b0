"""The pages: nobody reads a run who may not, and nothing but runs can be read."""

from __future__ import annotations

import warnings
from typing import Any

import pytest


@pytest.fixture(scope="module")
def app() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mayfly.airflow.pages import build

        return build()


def test_every_route_asks_airflow(app: Any) -> None:
    assert len(app.routes) == 5
    for route in app.routes:
        assert "{dag_id}" in route.path, "the check is by this name"
        asked = [dependency.call.__qualname__ for dependency in route.dependant.dependencies]
        assert any("requires_access_dag" in name for name in asked), route.path
        assert route.methods == {"GET"}


def test_the_plugin_only_names_things() -> None:
    import subprocess
    import sys

    from tests.dags.bags import ROOT

    code = """if True:
        import sys
        import airflow.plugins_manager
        before = set(sys.modules)
        import mayfly_plugin
        new = {name for name in set(sys.modules) - before}
        heavy = [n for n in new if n.startswith(("mayfly.airflow.pages", "airflow.api_fastapi", "dask", "pydantic"))]
        assert not heavy, heavy
        plugin = mayfly_plugin.MayflyPlugin()
        assert plugin.external_views[0]["href"] == "/airflow/mayfly/run/{DAG_ID}/{RUN_ID}"
    """
    env = {"PYTHONPATH": f"{ROOT}/plugins", "AIRFLOW__API__BASE_URL": "https://example.com/airflow/", "PATH": ""}
    import os

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_policies(app: Any) -> None:
    from mayfly.airflow.pages import NO_SCRIPTS, SANDBOXED

    assert "script-src" not in NO_SCRIPTS and NO_SCRIPTS.startswith("default-src 'none'")
    assert SANDBOXED.startswith("sandbox allow-scripts;") and "allow-same-origin" not in SANDBOXED


def test_addresses_survive_odd_run_ids() -> None:
    from mayfly.airflow.links import page

    found = page("report", dag_id="trips", group="a.b", map_index=3, run_id="x/y ?#é+1")
    assert found.endswith("/mayfly/report/trips/a.b/3/x%2Fy%20%3F%23%C3%A9%2B1")
