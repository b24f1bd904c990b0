"""Buttons of a task in the UI: the report, Dask's report, the files of the run directory; and pages of the cloud.

The addresses of the former are relative to the UI and lead to the pages of `mayfly.airflow.pages`, which check who may
read them. The latter are the cloud's own, which does so itself.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink

from mayfly.airflow.compat import conf

MOUNT = "/mayfly"
"""Where the pages are, below the UI's own address."""


def _prefix() -> str:
    """With the path of `[api] base_url`: an Airflow may live at https://example.com/airflow/."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + MOUNT


RUN_PAGE = _prefix() + "/run/{DAG_ID}/{RUN_ID}"
"""Airflow's UI fills this in. Version 3.1 does not encode the run id, so it comes last."""


def page(kind: str, *, dag_id: str, group: str, map_index: int, run_id: str) -> str:
    """Address of a run's page. The run id comes last and whole: it may hold any character but has no fixed form."""
    parts = (dag_id, group, str(map_index), run_id)
    return f"{_prefix()}/{kind}/" + "/".join(quote(part, safe="") for part in parts)


class _PageLink(BaseOperatorLink):
    kind = ""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """A relative address; empty where the operator belongs to no cluster."""
        members = getattr(operator, "members", None)
        if members is None:
            return ""
        return page(
            self.kind,
            dag_id=ti_key.dag_id,
            group=members.group_id,
            map_index=ti_key.map_index if members.mapped else -1,
            run_id=ti_key.run_id,
        )


class _ForeignLink(BaseOperatorLink):
    """A page outside Airflow, which the operator has noted while it ran; without one there is no button."""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return str(getattr(operator, "pages", {}).get(self.name, ""))


class ConsoleLink(_ForeignLink):
    name = "Cloud console"


class CloudJobLink(_ForeignLink):
    name = "Dataproc job"


class DashboardLink(_ForeignLink):
    name = "Dask dashboard"


class ReportLink(_PageLink):
    name = "Report"
    kind = "report"


class DaskReportLink(_PageLink):
    name = "Dask report"
    kind = "dask"


class FilesLink(_PageLink):
    name = "Logs and files"
    kind = "files"
