"""Holds no DAG of Airflow: its import error names every job.yaml that is broken, so that dags/jobs.py has none."""

from __future__ import annotations

from mayfly.airflow.factory import raise_broken_jobs

raise_broken_jobs(globals())
