"""What a user sees of a run on Dataproc: its log, its buttons, its report."""

from __future__ import annotations

import urllib.request
from urllib.parse import quote

import pytest

from mayfly.airflow.standalone import Stack
from tests.verdict.cloud import Cloud, missing
from tests.verdict.world import Case, SerialApi, World

pytestmark = pytest.mark.timeout(1500)


def test_a_run_on_dataproc_shows_where_it_is(stack: Stack, cloud: Cloud | None) -> None:
    if cloud is None:
        pytest.skip(str(missing()))
    case = Case(World(stack, SerialApi(stack), cloud)).trigger(target="gcp")
    assert str(case.seen()) == "green · 1/1 · 0 · 1/1"
    name, run = case.name(), case.run

    def links(task: str) -> dict[str, str | None]:
        path = f"{run.path}/taskInstances/{quote(f'cluster.{task}')}/links"
        return dict(run.api.call("GET", path)["extra_links"])

    console, place = "https://console.cloud.google.com/dataproc", "region=europe-west3&project=verdict"
    assert links("create_cluster") == {"Cloud console": f"{console}/clusters/{name}/monitoring?{place}"}
    found = links("run_job")
    assert found["Dataproc job"] == f"{console}/jobs/{name}-run_job-1?{place}"
    assert str(found["Dask dashboard"]).endswith(".dataproc.googleusercontent.com/gateway/default/dask/status")
    page = urllib.request.Request(
        stack.url + str(found["Report"]), headers={"Authorization": f"Bearer {run.api.token}"}
    )
    with urllib.request.urlopen(page, timeout=240) as answer:  # from the bucket, by the api-server
        assert b"master: 1 x n2-" in answer.read()
    created = run.log("create_cluster")
    assert f"cluster {name}: " in created
    assert f"Cloud console: {console}/clusters/{name}" in created
    planned = run.log("plan")
    assert "machines  master: 1 x n2-" in planned
    report = case.dir().store.get(f"{case.dir().root}/report.html")
    assert report is not None and b"master: 1 x n2-" in report


def test_a_run_on_this_machine_has_no_buttons_out_of_airflow(stack: Stack) -> None:
    case = Case(World(stack, SerialApi(stack))).trigger()
    case.end()
    path = f"{case.run.path}/taskInstances/{quote('cluster.run_job')}/links"
    found = case.run.api.call("GET", path)["extra_links"]
    assert {name for name, address in found.items() if address} == {"Report", "Dask report", "Logs and files"}
