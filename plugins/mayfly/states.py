"""Cluster and job states as Mayfly knows them; each cloud's own states become these by one total table."""

from __future__ import annotations

from enum import StrEnum


class ClusterState(StrEnum):
    """CREATING and RUNNING may be adopted; ERROR and DELETING still hold machines; ABSENT is proven absence."""

    CREATING = "creating"
    RUNNING = "running"
    ERROR = "error"
    DELETING = "deleting"
    ABSENT = "absent"


class JobState(StrEnum):
    """What a backend can tell of a driver without reading the run directory. SILENT: its machine does not answer the
    cloud any more, which says something only together with an old heartbeat. UNKNOWN is no evidence of anything."""

    RUNNING = "running"
    ENDED = "ended"
    NEVER_STARTED = "never started"
    SILENT = "silent"
    UNKNOWN = "unknown"


LOCAL: dict[str, ClusterState] = {
    "RUNNING": ClusterState.RUNNING,
    "DELETING": ClusterState.DELETING,
    "DELETED": ClusterState.ABSENT,
    "DAMAGED": ClusterState.ERROR,  # its file cannot be read, so whatever it holds may be there
}
"""States of the `local` backend's own entries."""
