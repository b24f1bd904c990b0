"""Kill-points with the backend dataproc on the emulated API: also before and after each single call to Google."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

# Imported once, for all actors: it is what takes them longest.
import google.cloud.dataproc_v1  # noqa: F401

from mayfly.backends.dataproc_calls import Verb
from mayfly.contract import FrozenTarget, Timing
from mayfly.contract.nodes import GcpPlan
from mayfly.spec.job import JobSpec
from tests.emulators.dataproc.client import Emulator
from tests.killpoints.actors import World
from tests.killpoints.harness import KillPoints, Tap

BACKEND = "tests.chaos.cloud:StandInDriver"


@dataclass(frozen=True, kw_only=True)
class CloudWorld(World):
    host: str
    timing: Timing = field(default_factory=lambda: Timing(stop_grace=0.3, status=0.02))
    patience: float = 240.0

    @property
    def project(self) -> str:
        return self.folder.name

    @property
    def target(self) -> FrozenTarget:
        return FrozenTarget(
            name="local",
            backend=self.backend,
            launcher="processes",
            staging=f"file://{self.folder}/staging",
            python=sys.executable,
            timing=self.timing,
            gcp=GcpPlan(project=self.project, region="europe-west3", call_deadline=5.0, settle=0.2),
        )

    @property
    def spec(self) -> JobSpec:
        return super().spec.model_copy(update={"env": {"SECONDS": "1.5", "OUTCOME": "success"}})

    def ran(self) -> list[str]:
        path = self.folder / "staging" / "ran.txt"
        return path.read_text().splitlines() if path.exists() else []


class CloudTap(Tap):
    """Each call to Google within a verb is a point, too."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        inner = Verb.__call__

        @wraps(inner)
        def tapped(this: Verb, method: Any, request: Any) -> Any:
            if self.depth > 1:  # our own look at what there is
                return inner(this, method, request)
            call = f"google.{method.__name__}"
            self._at("before", call)
            answer = inner(this, method, request)
            self._at("after", call)
            return answer

        Verb.__call__ = tapped  # type: ignore[method-assign]

    def _check_single(self) -> None:
        self.depth += 1
        super()._check_single()
        self.depth -= 1


class CloudKillPoints(KillPoints):
    tap = CloudTap

    def __init__(self, *, folder: Path, emulator: Emulator) -> None:
        super().__init__(backend=BACKEND, folder=folder)
        self.emulator = emulator

    def world(self) -> World:
        made = super().world()
        return CloudWorld(folder=made.folder, backend=made.backend, host=self.emulator.host)

    def left(self, world: World) -> list[str]:
        """As the cloud itself knows it."""
        return [f"{each['name']} {each['state']}" for each in self.emulator.clusters() if self._in(each, world)]

    def end(self, world: World) -> None:
        for each in self.emulator.history():
            if self._in(each, world) and each["gone_at"] is None:
                self.emulator.ask("POST", "clear")
                return

    @staticmethod
    def _in(cluster: dict[str, Any], world: World) -> bool:
        return bool(cluster["project"] == world.folder.name)


@contextmanager
def emulated(folder: Path) -> Iterator[CloudKillPoints]:
    with Emulator(folder / "emulator", env={"STORAGE_EMULATOR_HOST": ""}) as emulator:
        os.environ |= {"DATAPROC_EMULATOR_HOST": emulator.host, "NO_GCE_CHECK": "true"}
        yield CloudKillPoints(folder=folder / "worlds", emulator=emulator)
