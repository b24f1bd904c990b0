"""Has no cluster: not ours to refuse."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
from airflow.sdk import DAG

with DAG("of_others", schedule=None, dagrun_timeout=timedelta(hours=1), doc_md=str(pd.Timestamp(0))):
    pass
