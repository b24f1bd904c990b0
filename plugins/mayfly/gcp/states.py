"""Dataproc's states as Mayfly's: two total tables by the SDK's names. Pure.

A test walks the SDK's enums, so that a new state of the cloud breaks the tests and not production.
"""

from __future__ import annotations

from typing import Final

from mayfly.states import ClusterState, JobState

CLUSTER: Final[dict[str, ClusterState]] = {
    "UNKNOWN": ClusterState.CREATING,  # there is something; what, the next look says, or the start's time limit
    "CREATING": ClusterState.CREATING,
    "RUNNING": ClusterState.RUNNING,
    "UPDATING": ClusterState.RUNNING,  # takes and runs jobs: this is how autoscaling looks
    "ERROR_DUE_TO_UPDATE": ClusterState.RUNNING,  # runs jobs, cannot be resized any more
    "ERROR": ClusterState.ERROR,
    "DELETING": ClusterState.DELETING,
    # Nobody here stops clusters: who did ended the driver with it.
    "STOPPING": ClusterState.ERROR,
    "STOPPED": ClusterState.ERROR,
    "STARTING": ClusterState.CREATING,
    "REPAIRING": ClusterState.CREATING,
}
"""ClusterStatus.State."""

JOB: Final[dict[str, JobState]] = {
    "STATE_UNSPECIFIED": JobState.UNKNOWN,
    "PENDING": JobState.RUNNING,
    "SETUP_DONE": JobState.RUNNING,
    "RUNNING": JobState.RUNNING,
    "CANCEL_PENDING": JobState.RUNNING,
    "CANCEL_STARTED": JobState.RUNNING,
    "CANCELLED": JobState.ENDED,
    "DONE": JobState.ENDED,
    "ERROR": JobState.ENDED,
    "ATTEMPT_FAILURE": JobState.RUNNING,  # Dataproc is about to start it again; started.json lets it run only once
}
"""JobStatus.State."""


def word(value: object) -> str:
    """Name of a value of the SDK's enums; its number where the cloud has one that this SDK does not know."""
    return str(getattr(value, "name", value))


def cluster_state(value: object) -> ClusterState:
    """Of a ClusterStatus.State. One that nobody here knows is UNKNOWN: it must keep no cluster from being deleted."""
    return CLUSTER.get(word(value), CLUSTER["UNKNOWN"])


def job_state(value: object) -> JobState:
    """Of a JobStatus.State."""
    return JOB.get(word(value), JOB["STATE_UNSPECIFIED"])
