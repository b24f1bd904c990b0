"""record.json: what happened in one attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mayfly.contract.failure import Failure
from mayfly.contract.job import Tasks
from mayfly.contract.values import SCHEMA, Timestamp


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Highest values seen in the attempt. `worker_memory` is the largest single worker, `memory` the sum of all."""

    workers: int = 0
    memory: int = 0
    worker_memory: int = 0
    script_memory: int = 0
    host_memory: int = 0
    spilled: int = 0
    cpu_workers: float = 0.0


@dataclass(frozen=True, kw_only=True)
class YarnNodeAccount:
    """What a run used of one node; `container_seconds` is the sum over its containers' lives."""

    containers: int = 0
    failed: int = 0
    preempted: int = 0
    container_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class YarnAccount:
    """YARN's own account of an attempt, all its applications together. Workers' containers only, but for
    `memory_mib_seconds` and `vcore_seconds` (what YARN charges, with the application master's)."""

    applications: tuple[str, ...]
    queue: str = ""
    memory_mib_seconds: int = 0
    vcore_seconds: int = 0
    containers_started: int = 0
    containers_failed: int = 0
    """Ended with an error, by themselves or killed; without those that were preempted."""
    containers_preempted: int = 0
    queue_wait: float = 0.0
    """Seconds from submission until the application master had its container."""
    nodes: Mapping[str, YarnNodeAccount] = field(default_factory=dict)
    """By host name."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """record.json: what happened in one attempt. Written once: by the driver, or by the orchestrator (`by`) when the
    backend has shown that the driver is gone."""

    cluster: str
    job: str
    attempt: int
    outcome: Outcome
    failure: Failure | None = None
    exit_code: int | None = None
    """Of the script; negative = ended by that signal (as in `subprocess`); None = never started or not known."""
    started_at: Timestamp
    ended_at: Timestamp
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds per `Phase`."""
    peaks: Peaks = field(default_factory=Peaks)
    tasks: Tasks = field(default_factory=Tasks)
    workers_lost: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What a person should know although nothing failed ("no task ran on the cluster: ...")."""
    yarn: YarnAccount | None = None
    by: str = "driver"
    schema: int = SCHEMA
