from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.init_actions.carrying import Carrying


@pytest.fixture
def carrying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carrying]:
    carrying = Carrying(tmp_path_factory.mktemp("carrying"), [])
    yield carrying
    carrying.end()
