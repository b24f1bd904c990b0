"""Which Airflow this is."""

from __future__ import annotations

import pytest

from mayfly.airflow.installation import installation_id


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAYFLY_INSTALLATION", "GCP_PROJECT", "COMPOSER_LOCATION", "COMPOSER_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_given_counts_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCP_PROJECT", "p")
    monkeypatch.setenv("MAYFLY_INSTALLATION", "mine")
    assert installation_id() == "mine"


def test_composer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("GCP_PROJECT", "p"), ("COMPOSER_LOCATION", "l"), ("COMPOSER_ENVIRONMENT", "e")):
        monkeypatch.setenv(name, value)
    assert installation_id() == "p/l/e"


def test_otherwise_an_id_made_once_in_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own Variable from the environment; `tests/lifecycle` has it in a database."""
    monkeypatch.setenv("GCP_PROJECT", "p")  # alone it is any Google machine
    monkeypatch.setenv("AIRFLOW_VAR_MAYFLY_INSTALLATION", "made-before")
    assert installation_id() == "made-before"
