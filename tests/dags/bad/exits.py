"""An airflow DAG file that was written as a script."""

from __future__ import annotations

import sys

sys.exit("no configuration")
