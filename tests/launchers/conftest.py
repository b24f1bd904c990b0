from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.driver.driving import Driving


@pytest.fixture(scope="module")
def driving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driving]:
    driving = Driving(tmp_path_factory.mktemp("driving"), [])
    yield driving
    driving.end()
