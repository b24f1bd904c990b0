"""Mayfly: a Python/Dask job on a cluster that lives exactly as long as the job.

The public names are for DAG files. They are imported when first used: the driver on the cluster and the command line
import this package, too, and have no Airflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mayfly.airflow.factory import build_dags
    from mayfly.airflow.taskgroup import dask_cluster

__all__ = ["build_dags", "dask_cluster"]

_HOMES = {"build_dags": "mayfly.airflow.factory", "dask_cluster": "mayfly.airflow.taskgroup"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
