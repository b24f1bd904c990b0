"""Loading DAG files as a dag-processor does, on both versions of Airflow, and a project to load them from."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def load(folder: Path) -> Any:
    """A DagBag of the folder. Airflow's own warnings are its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from airflow.dag_processing.dagbag import DagBag
        except ImportError:
            from airflow.models.dagbag import DagBag
        return (
            DagBag(dag_folder=str(folder), include_examples=False) if _takes_examples(DagBag) else DagBag(str(folder))
        )


def _takes_examples(bag: Any) -> bool:
    import inspect

    return "include_examples" in inspect.signature(bag.__init__).parameters


def serialized(dag: Any) -> dict[str, Any]:
    """A DAG as the scheduler gets it."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serializer
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serializer
    found: dict[str, Any] = Serializer.to_dict(dag)
    return found


def project(folder: Path, **jobs: str) -> Path:
    """A project with these jobs (text of job.yaml by name, script `pass`) and the repository's two DAG files."""
    (folder / "config").mkdir(parents=True)
    (folder / "jobs").mkdir()
    for name, text in jobs.items():
        place = folder / "jobs" / name
        place.mkdir()
        (place / "job.yaml").write_text(textwrap.dedent(text))
        (place / f"{name}.py").write_text("pass\n")
    (folder / "dags").mkdir()
    for file in ("jobs.py", "broken_jobs.py", ".airflowignore"):
        (folder / "dags" / file).write_text((ROOT / "dags" / file).read_text())
    return folder
