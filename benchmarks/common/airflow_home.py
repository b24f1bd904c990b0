"""An Airflow of the benchmark's own. Import this before anything of Airflow: it fixes its settings when imported."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(tempfile.mkdtemp(prefix="mayfly-bench-airflow-"))

for _name in [name for name in os.environ if name.startswith(("AIRFLOW", "MAYFLY_"))]:
    del os.environ[_name]
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db?timeout=60",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "AIRFLOW__DAG_FACTORY__ENABLE_TELEMETRY": "False",
    "MAYFLY_INSTALLATION": "bench",
}
for _folder in ("dags", "plugins"):
    (HOME / _folder).mkdir()
warnings.simplefilter("ignore")  # Airflow's own are its own affair
_owner = os.getpid()
atexit.register(lambda: shutil.rmtree(HOME, ignore_errors=True) if os.getpid() == _owner else None)


def migrate() -> None:
    """Make the metadata; some 20 s."""
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )


def version() -> str:
    from airflow import __version__

    return str(__version__)
