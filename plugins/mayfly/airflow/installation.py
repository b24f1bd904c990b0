"""Which Airflow this is: two installations that share a cloud project must never mistake each other's clusters."""

from __future__ import annotations

import os
import secrets
import time

VARIABLE = "mayfly_installation"
"""The Airflow Variable that holds the id where the environment names none."""
_COMPOSER = ("GCP_PROJECT", "COMPOSER_LOCATION", "COMPOSER_ENVIRONMENT")
_SETTLE_SECONDS = 1.0


def installation_id() -> str:
    """MAYFLY_INSTALLATION, else project + location + Composer environment, else an id made once in the metadata.

    Never the host or a file: workers share neither. Call it in a task only; the Variable is asked through the task's
    supervisor.
    """
    if given := os.environ.get("MAYFLY_INSTALLATION"):
        return given
    composer = [os.environ.get(name, "") for name in _COMPOSER]
    if all(composer):
        return "/".join(composer)
    return _from_metadata()


def _from_metadata() -> str:
    from airflow.sdk import Variable

    if found := Variable.get(VARIABLE, default=None):
        return str(found)
    Variable.set(VARIABLE, secrets.token_hex(8), description="Mayfly: tells the clusters of two Airflows apart")
    # A Variable has no create-if-absent. Two first runs at once both write; after a moment both read the last one.
    time.sleep(_SETTLE_SECONDS)
    return str(Variable.get(VARIABLE))
