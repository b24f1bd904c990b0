"""Names that moved between Airflow 3.1 and 3.3."""

from __future__ import annotations

import airflow.sdk.exceptions as _new

if hasattr(_new, "AirflowRescheduleException"):
    AirflowException = _new.AirflowException
    AirflowFailException = _new.AirflowFailException
    AirflowRescheduleException = _new.AirflowRescheduleException
    AirflowSkipException = _new.AirflowSkipException
else:
    from airflow.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowRescheduleException,
        AirflowSkipException,
    )

try:
    from airflow.sdk.configuration import conf
except ImportError:
    from airflow.configuration import conf

__all__ = ["AirflowException", "AirflowFailException", "AirflowRescheduleException", "AirflowSkipException", "conf"]
