"""Pages of a run in Airflow's UI: its clusters, the report, Dask's report, logs.

Served by the api-server from the target's staging store. A plugin's app has no access control of its own, so every
route asks Airflow whether this user may read runs of this DAG; there are no other routes (no schema, no docs).
Airflow's login cookie can be read by scripts. Therefore our own page may run none, and Dask's report, which needs them
and holds text from the cluster, is sandboxed: a foreign origin without cookies. Everything else is plain text.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Path
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from mayfly.airflow.members import PLAN
from mayfly.errors import MayflyError
from mayfly.staging.credentials import target_store
from mayfly.staging.rundir import RunDir
from mayfly.steps.lifecycle import Handle

REPORT = "report.html"
DASK_REPORT = "dask-report.html"
NO_SCRIPTS = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
SANDBOXED = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' https://cdn.bokeh.org; "
    "style-src 'unsafe-inline' https://cdn.bokeh.org; img-src data:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
_STYLE = (
    "<style>body{font:15px/1.5 system-ui,sans-serif;margin:2em;max-width:60em}td{padding:.2em 1.5em .2em 0}</style>"
)
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def build() -> FastAPI:
    """The app, to be mounted at `links.MOUNT`."""
    app = FastAPI(title="Mayfly", docs_url=None, redoc_url=None, openapi_url=None)
    allowed = [Depends(requires_access_dag("GET", DagAccessEntity.RUN))]
    run_id_path = "{run_id:path}"
    app.get("/run/{dag_id}/" + run_id_path, dependencies=allowed)(clusters)
    app.get("/report/{dag_id}/{group}/{map_index}/" + run_id_path, dependencies=allowed)(report)
    app.get("/dask/{dag_id}/{group}/{map_index}/" + run_id_path, dependencies=allowed)(dask_report)
    # `~` ends the run id, which may hold slashes; the report's own links are relative to what follows it.
    app.get("/files/{dag_id}/{group}/{map_index}/" + run_id_path + "/~/{name:path}", dependencies=allowed)(file)
    app.get("/files/{dag_id}/{group}/{map_index}/" + run_id_path, dependencies=allowed)(files)
    return app


Text = Annotated[str, Path()]
Index = Annotated[int, Path()]


def clusters(dag_id: Text, run_id: Text) -> Response:
    """All clusters of a DAG run; where there is one, its report at once."""
    found = [(group, index) for group, index, _ in _plans(dag_id, run_id)]
    if len(found) == 1:
        return report(dag_id, *found[0], run_id)
    if not found:
        return _page("No cluster", "<p>No cluster of this run was planned, or its tasks were cleared.</p>")
    rows = "".join(
        f"<tr><td>{escape(group)}{f' [{index}]' if index >= 0 else ''}</td>"
        f'<td><a href="{_address("report", dag_id, group, index, run_id)}">report</a></td>'
        f'<td><a href="{_address("files", dag_id, group, index, run_id)}">files</a></td></tr>'
        for group, index in found
    )
    return _page(f"{len(found)} clusters", f"<table>{rows}</table>")


def report(dag_id: Text, group: Text, map_index: Index, run_id: Text) -> Response:
    """To the report, once it is written; before that to the files that are there."""
    rundir = _rundir(dag_id, group, map_index, run_id)
    there = rundir.store.get(f"{rundir.root}/{REPORT}") is not None
    return RedirectResponse(_address("files", dag_id, group, map_index, run_id) + (f"/~/{REPORT}" if there else ""))


def dask_report(dag_id: Text, group: Text, map_index: Index, run_id: Text) -> Response:
    """To Dask's report of the last attempt that has one."""
    names = _names(_rundir(dag_id, group, map_index, run_id))
    reports = [name for name in names if name.endswith(f"/{DASK_REPORT}")]
    if not reports:
        return _page("No Dask report yet", "<p>It is written when an attempt of the job ends.</p>")
    return RedirectResponse(f"{_address('files', dag_id, group, map_index, run_id)}/~/{quote(reports[-1])}")


def files(dag_id: Text, group: Text, map_index: Index, run_id: Text) -> Response:
    """What the run directory holds."""
    rundir = _rundir(dag_id, group, map_index, run_id)
    here = _address("files", dag_id, group, map_index, run_id)
    rows = "".join(
        f'<tr><td><a href="{here}/~/{escape(quote(name))}">{escape(name)}</a></td></tr>' for name in _names(rundir)
    )
    return _page(rundir.name, f"<p>{escape(rundir.url)}</p><table>{rows}</table>")


def file(dag_id: Text, group: Text, map_index: Index, run_id: Text, name: Text) -> Response:
    """One file of the run directory."""
    rundir = _rundir(dag_id, group, map_index, run_id)
    if not name or any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or "\0" in name:
        raise HTTPException(404, "no such file")
    data = rundir.store.get(f"{rundir.root}/{name}")
    if data is None:
        raise HTTPException(404, f"no file {name!r} in {rundir.name}")
    if name == REPORT:
        return _answer(data, "text/html; charset=utf-8", NO_SCRIPTS)
    if name.rsplit("/", 1)[-1] == DASK_REPORT:
        return _answer(data, "text/html; charset=utf-8", SANDBOXED)
    return _answer(data, "text/plain; charset=utf-8", NO_SCRIPTS)


# ---------------------------------------------------------------- inside


def _plans(dag_id: str, run_id: str) -> list[tuple[str, int, Any]]:
    """Group, map index and return value of each plan task of a DAG run."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    wanted = select(XComModel.task_id, XComModel.map_index, XComModel.value).where(
        XComModel.dag_id == dag_id,
        XComModel.run_id == run_id,
        XComModel.key == "return_value",
        XComModel.task_id.endswith(f".{PLAN}", autoescape=True),
    )
    with create_session() as session:
        rows = sorted(tuple(row) for row in session.execute(wanted))
    return [(str(task).removesuffix(f".{PLAN}"), int(index), value) for task, index, value in rows]


def _rundir(dag_id: str, group: str, map_index: int, run_id: str) -> RunDir:
    """The run directory that plan returned, if it says the same of itself; any task could have returned a path."""
    value = next((value for g, i, value in _plans(dag_id, run_id) if (g, i) == (group, map_index)), None)
    if value is None:
        raise HTTPException(404, "this run has planned no such cluster, or its plan task was cleared")
    try:
        handle = Handle.from_json(json.loads(value) if isinstance(value, str) else value)
        rundir = RunDir(target_store(handle.target), handle.name)
        plan = rundir.plan() if _NAME.fullmatch(handle.name) else None
    except (MayflyError, ValueError) as error:
        raise HTTPException(503, f"the run directory cannot be read: {error}") from error
    if plan is None or (plan.identity.dag_id, plan.identity.run_id) != (dag_id, run_id):
        raise HTTPException(404, "there is no run directory of this run")
    return rundir


def _names(rundir: RunDir) -> list[str]:
    return [path.removeprefix(f"{rundir.root}/") for path in rundir.store.list(f"{rundir.root}/")]


def _address(kind: str, dag_id: str, group: str, map_index: int, run_id: str) -> str:
    from mayfly.airflow.links import page

    return escape(page(kind, dag_id=dag_id, group=group, map_index=map_index, run_id=run_id))


def _page(title: str, body: str) -> Response:
    text = f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title>{_STYLE}<h1>{escape(title)}</h1>{body}"
    return _answer(text.encode(), "text/html; charset=utf-8", NO_SCRIPTS)


def _answer(data: bytes, media_type: str, policy: str) -> Response:
    response = HTMLResponse(data, media_type=media_type)
    response.headers["Content-Security-Policy"] = policy
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response
