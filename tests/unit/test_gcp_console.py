"""Addresses of Google's own pages."""

from __future__ import annotations

from mayfly.contract.nodes import GcpPlan
from mayfly.gcp.console import cluster_page, dashboard_page, job_page

GCP = GcpPlan(project="acme-data", region="europe-west3")


def test_pages_of_the_console_name_project_and_region() -> None:
    console, place = "https://console.cloud.google.com/dataproc", "region=europe-west3&project=acme-data"
    assert cluster_page(GCP, "mayfly-x") == f"{console}/clusters/mayfly-x/monitoring?{place}"
    assert job_page(GCP, "mayfly-x-run_job-1") == f"{console}/jobs/mayfly-x-run_job-1?{place}"


def test_the_dashboard_is_behind_the_gateway() -> None:
    host = "https://abc-dot-europe-west3.dataproc.googleusercontent.com"
    assert dashboard_page(f"{host}/yarn/") == f"{host}/gateway/default/dask/status"
    assert dashboard_page("") == ""
