"""The cloud of rows with the backend dataproc: an object store and the emulated API, whose "nodes" are processes here.

Each target of such a row has a Google project of its own, so that its faults are its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mayfly.staging.gcs import GcsStore
from scripts.cloud import object_store
from scripts.cloud.object_store import ObjectStore
from tests.emulators.dataproc.client import Emulator

BUCKET = "mayfly-verdict"


@dataclass(frozen=True)
class Cloud:
    objects: ObjectStore
    emulator: Emulator
    ban: str
    """The rule against deleting in the project `no-permission`."""

    @property
    def env(self) -> dict[str, str]:
        return self.objects.env | {"DATAPROC_EMULATOR_HOST": self.emulator.host, "NO_GCE_CHECK": "true"}

    @property
    def store(self) -> GcsStore:
        return GcsStore(f"gs://{BUCKET}/staging", endpoint=self.objects.url)

    def permit(self) -> None:
        """From now on clusters may be deleted in the project `no-permission`."""
        self.emulator.remove_rule(self.ban)

    def clusters(self) -> set[str]:
        """Names of all that cost money."""
        return {str(cluster["name"]) for cluster in self.emulator.clusters()}


def missing() -> str | None:
    return object_store.PROGRAM.missing()


@contextmanager
def cloud(folder: Path) -> Iterator[Cloud]:
    with object_store.start(folder / "objects") as objects:
        objects.make_bucket(BUCKET)
        # The jobs' `python`, as in the targets, is this one.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        with Emulator(folder / "dataproc", env={**objects.env, "PATH": path}) as emulator:
            emulator.rule(on="boot", do="error", project="no-room", reason="stockout")
            yield Cloud(objects, emulator, ban=emulator.rule(on="DeleteCluster", do="403", project="no-permission"))
