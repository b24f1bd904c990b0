"""Where a run can be looked at outside Airflow: pages of its cloud, by the name of their button."""

from __future__ import annotations

from mayfly.steps.lifecycle import Run

CONSOLE, CLOUD_JOB, DASHBOARD = "Cloud console", "Dataproc job", "Dask dashboard"


def pages_of(run: Run, job: str | None = None) -> dict[str, str]:
    """Address by name, without those that there are not (yet). `job` is a key of the run directory; its last attempt
    counts. Reads one or two small files where the cluster is on a cloud, else nothing."""
    gcp = run.plan.target.gcp
    if gcp is None:
        return {}
    from mayfly.gcp.cluster import job_id
    from mayfly.gcp.console import cluster_page, dashboard_page, job_page

    found = {CONSOLE: cluster_page(gcp, run.plan.name), DASHBOARD: dashboard_page(run.dir.progress().gateway)}
    number = run.dir.last_attempt(job) if job else 0
    order = run.dir.attempt(job, number).order() if job and number else None
    if order is not None:
        found[CLOUD_JOB] = job_page(gcp, job_id(order))
    return {name: address for name, address in found.items() if address}
