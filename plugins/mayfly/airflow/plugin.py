"""Mayfly's part of Airflow's UI: a page for each DAG run. Loaded by every service, so it only names things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from mayfly.airflow.compat import conf
from mayfly.airflow.links import MOUNT, RUN_PAGE


class LazyApp:
    """The pages as an ASGI app, imported at the first request: it costs more than a second, and most services have no
    use for it."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            from mayfly.airflow.pages import build

            self._app = build()
        await self._app(scope, receive, send)


class MayflyPlugin(AirflowPlugin):
    """Links of tasks need no entry here: Airflow stores their addresses with the task."""

    name = "mayfly"
    fastapi_apps = [{"name": "Mayfly", "app": LazyApp(), "url_prefix": MOUNT}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {"name": "Clusters", "href": RUN_PAGE, "destination": "dag_run", "url_route": "mayfly-clusters"}
    ]


def _entry_point() -> type[MayflyPlugin] | None:
    """None where the plugins folder holds the plugin, too (a development install): Airflow 3.3 shows a second one as
    an error."""
    folder = conf.get("core", "plugins_folder", fallback="")
    return None if folder and Path(folder, "mayfly_plugin.py").exists() else MayflyPlugin


entry_point = _entry_point()
"""What `airflow.plugins` of the installed distribution names."""
