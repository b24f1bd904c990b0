"""What can be chosen about nodes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.emulators.dataproc.nodes.namespaces import Bind

ROOT = Path(__file__).resolve().parents[4]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be chosen about nodes; seconds."""

    binds: Sequence[Bind] = ()
    """More of this host that nodes see."""
    hidden: Sequence[Path] = (Path.home(), ROOT)
    """Folders of this host that are empty in nodes, so that nothing works only because it lies here."""
    spark: Path | None = None
    """SPARK_HOME of this host (a folder with `jars`); without it no job can run."""
    python: str = "/usr/bin/python3"
    """The image's Python, as nodes see it."""
    ports: Sequence[int] = ()
    """Of this host's loopback that every node reaches on its own; that of $STORAGE_EMULATOR_HOST always."""
    exports: Mapping[str, Path | str] = field(default_factory=dict)
    """NFS: export such as "/data" -> folder of this host. The server is `filestore` in nodes, root is squashed."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More variables of daemons, jobs and containers."""
    ready_seconds: float = 300.0
    soft_off: bool = False
    """With the notice the node's daemons get SIGTERM, as by a shutdown: Compute Engine sends ACPI's soft off then. What
    Dataproc's images make of it is not documented."""
    cancel_seconds: float = 20.0
    """From SIGTERM to SIGKILL of a cancelled job's JVM."""
    kill_tree: bool = True
    """That SIGKILL is for all that descends from the JVM; else for the JVM alone."""

    @property
    def variables(self) -> dict[str, str]:
        """Of daemons, jobs, containers and init actions, beyond what the node has."""
        store = os.environ.get("STORAGE_EMULATOR_HOST")
        # Unless told not to, gcsfs asks for a minute by gRPC what kind a bucket is.
        given = {"STORAGE_EMULATOR_HOST": store, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"} if store else {}
        return {key: value for key, value in given.items() if value} | dict(self.environment)

    @property
    def relayed(self) -> set[int]:
        """Ports of this host's loopback that nodes reach on theirs."""
        store = os.environ.get("STORAGE_EMULATOR_HOST", "")
        port = urlsplit(store if "://" in store else f"//{store}").port
        return {*self.ports, *([port] if port else [])}
