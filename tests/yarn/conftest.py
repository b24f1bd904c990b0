"""Tests on a real Hadoop; its fixtures (`hadoop`, `hadoop_env`) are in fixtures.py, for other folders, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.driver.driving import Driving


@pytest.fixture
def driving(tmp_path: Path) -> Iterator[Driving]:
    """Drivers that end with the test, before the Hadoop is made whole again."""
    driving = Driving(tmp_path, [])
    yield driving
    driving.end()
