"""A module of the user's, beside the files that Airflow reads."""

from __future__ import annotations

import numpy as np

number = int(np.int64(3))
