"""An airflow DAG file that takes whoever reads it along."""

from __future__ import annotations

import os

os._exit(3)
