"""Rows of the verdict matrix (`make verdict`) that every change must pass and `test_verdicts.py` does not hold."""

from __future__ import annotations

from collections.abc import Iterator

import airflow
import pytest

from mayfly.airflow.standalone import Stack
from tests.verdict.cloud import Cloud, missing
from tests.verdict.rows import CLOUD, ROWS
from tests.verdict.runner import Runner
from tests.verdict.table import Results
from tests.verdict.world import SerialApi, World

pytestmark = pytest.mark.timeout(2400)

TITLES = (
    "create's supervisor killed; its orphan goes on after the receipt",
    "user marks the DAG run failed in mid-create",
    "delete fails once",
    "DAG paused in mid-job, longer than the lease",
    f"{CLOUD}create fails",
    f"{CLOUD}user marks the DAG run failed in mid-job",
)


@pytest.fixture(scope="module")
def results(stack: Stack, cloud: Cloud | None) -> Iterator[Results]:
    """All of them, side by side."""
    made = Results(airflow.__version__)
    possible = [row for row in ROWS if row.title in TITLES and (cloud or not row.title.startswith(CLOUD))]
    Runner(World(stack, SerialApi(stack), cloud), made).all(possible)
    yield made


@pytest.mark.parametrize("title", TITLES)
def test_row(results: Results, title: str) -> None:
    if title not in results.rows:
        pytest.skip(str(missing()))
    result = results.rows[title]
    assert result.seen == result.wanted
