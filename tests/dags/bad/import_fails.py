"""An airflow DAG file with an ordinary mistake."""

from __future__ import annotations

import surely_no_such_module  # noqa: F401
