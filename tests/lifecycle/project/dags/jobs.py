"""The jobs of this project, each an Airflow DAG."""

from __future__ import annotations

from mayfly.airflow.factory import build_dags

build_dags(globals())
