from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.emulators.dataproc.client import Emulator
from tests.emulators.dataproc.sdk import Google


@pytest.fixture(scope="session")
def one_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("dataproc"), output_seconds=0.1, preempt_notice=0.1) as emulator:
        yield emulator


@pytest.fixture
def emulator(one_emulator: Emulator) -> Iterator[Emulator]:
    """As if it had just been started."""
    before = one_emulator.ask("GET", "settings")
    yield one_emulator
    one_emulator.clear()
    one_emulator.settings(**{name: value for name, value in before.items() if name != "projects"})


@pytest.fixture
def google(emulator: Emulator) -> Iterator[Google]:
    client = Google(emulator)
    yield client
    client.close()
