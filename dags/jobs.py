"""Every jobs/<name>/job.yaml becomes a DAG of Airflow. Nothing to edit here."""

from __future__ import annotations

from mayfly import build_dags

build_dags(globals())
