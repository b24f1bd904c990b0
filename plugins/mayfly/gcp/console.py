"""Addresses of Google's own pages on a cluster and its jobs. Pure.

As Google's provider for Airflow makes them (links of its Dataproc operators), and as Knox serves Dask's dashboard by
the definitions that our init action writes.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from mayfly.contract.nodes import GcpPlan

_CONSOLE = "https://console.cloud.google.com/dataproc"


def cluster_page(gcp: GcpPlan, name: str) -> str:
    return f"{_CONSOLE}/clusters/{name}/monitoring?region={gcp.region}&project={gcp.project}"


def job_page(gcp: GcpPlan, job_id: str) -> str:
    return f"{_CONSOLE}/jobs/{job_id}?region={gcp.region}&project={gcp.project}"


def dashboard_page(gateway: str) -> str:
    """Dask's dashboard behind the component gateway; `gateway` is any of the addresses that Dataproc gives for it."""
    place = urlsplit(gateway)
    return f"{place.scheme}://{place.netloc}/gateway/default/dask/status" if place.netloc else ""
