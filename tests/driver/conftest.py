from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.driver.driving import Driving


@pytest.fixture
def driving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driving]:
    driving = Driving(tmp_path_factory.mktemp("driving"), [])
    yield driving
    driving.end()


@pytest.fixture(scope="module")
def shared_driving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driving]:
    """For runs that several tests look at."""
    driving = Driving(tmp_path_factory.mktemp("driving"), [])
    yield driving
    driving.end()
