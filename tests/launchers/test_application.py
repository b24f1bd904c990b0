"""What an application master is asked for while nothing happens, and what is known when something has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

skein = pytest.importorskip("skein")

from mayfly.driver.launchers.yarn_application import OVER, Application  # noqa: E402


class Master:
    """skein's side: containers as they are now, and how many of them were told."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.told = 0

    def add_container(self, service: str, environment: dict[str, str]) -> Any:
        self.states.append("REQUESTED")
        return self._container(len(self.states) - 1)

    def get_containers(self, services: Sequence[str], states: Sequence[str]) -> list[Any]:
        found = [self._container(number) for number, state in enumerate(self.states) if state in states]
        self.told += len(found)
        return found

    def close(self) -> None:
        pass

    def _container(self, number: int) -> Any:
        return skein.model.Container("worker", number, self.states[number], "", "", None, None, "")


def test_containers_that_have_ended_are_not_asked_for_again_and_again() -> None:
    async def run() -> None:
        master = Master()
        application = Application(None, "application_1_1")
        application._master = master

        async def states() -> list[str]:
            return [str(container.state) for container in (await application.containers()).values()]

        names = [await application.add(str(worker)) for worker in range(20)]
        master.states[:18] = ["FAILED"] * 17 + ["SUCCEEDED"]
        assert sorted(await states()) == sorted([*["FAILED"] * 17, "SUCCEEDED", *["REQUESTED"] * 2])
        master.told = 0
        assert len(await states()) == 20
        assert master.told == 2
        master.states[18] = "KILLED"
        found = await application.containers()
        assert [str(found[name].state) for name in names[17:]] == ["SUCCEEDED", "KILLED", "REQUESTED"]
        late = await application.add("20")
        master.states[20] = "FAILED"  # before anybody has looked
        assert str((await application.containers())[late].state) in OVER
        application.close()

    asyncio.run(run())
