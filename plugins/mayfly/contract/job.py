"""An attempt of a job while it lives: the order, the driver's claim, lease and heartbeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mayfly.contract.plan import Environment, Limits, Timing, WorkersPlan, YarnPlan
from mayfly.contract.values import SCHEMA, Json, Timestamp


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """job.json: all that the driver needs to know. `args` are final strings; nothing is rendered on the cluster."""

    cluster: str
    owner: str
    job: str
    """Task id [+ "-" + map index]: the folder below `jobs/`."""
    attempt: int
    script: str
    """Path inside the job's folder, with forward slashes."""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    launcher: str = "processes"
    workers: WorkersPlan
    dask: Mapping[str, Json] = field(default_factory=dict)
    limits: Limits
    script_memory: int | None = None
    adopt: bool = True
    code: str
    environment: Environment | None = None
    """What the driver brings to its workers; None where the nodes have it already."""
    yarn: YarnPlan | None = None
    carrier: str = ""
    """Path below staging of the file that starts the driver; empty where the backend starts it by itself."""
    python: str = ""
    """Interpreter of the driver on such a cluster; empty = the one that runs the carrier."""
    lease_ttl: float
    timing: Timing = field(default_factory=Timing)
    expires_at: Timestamp
    at: Timestamp
    by: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Started:
    """started.json: the driver that took this attempt. Create-if-absent: an attempt runs at most once, whoever starts
    it, and however often."""

    pid: int
    host: str
    at: Timestamp
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Lease:
    """lease.json: a new `seq` is the orchestrator's sign of life. The cursor is the reader's place in the log.

    `shown` is the last progress line, so that a line is printed once per change."""

    seq: int
    writer: str
    ttl_s: float
    segment: int = 0
    shown: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Ack:
    """ack.json: this attempt's end was reported to the orchestrator's try number `by_try`; a later try starts anew."""

    by_try: int
    at: Timestamp
    schema: int = SCHEMA


class Phase(StrEnum):
    PREPARE = "prepare"
    START = "start Dask"
    PREFLIGHT = "preflight"
    RUN = "run"
    COLLECT = "collect"
    STOP = "stop"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Cumulative counts from the scheduler's own counters. `recomputed` = finished more than once."""

    done: int = 0
    running: int = 0
    waiting: int = 0
    failed: int = 0
    recomputed: int = 0


@dataclass(frozen=True, kw_only=True)
class Status:
    """status.json: the heartbeat, every `Timing.status` seconds. CPU is in cores (1.0 = one core busy)."""

    seq: int
    at: Timestamp
    phase: Phase
    elapsed: float
    tasks: Tasks = field(default_factory=Tasks)
    biggest: str = ""
    """The biggest unfinished task prefix, e.g. "read_csv 12/40"."""
    workers: int = 0
    workers_wanted: int = 0
    memory: int = 0
    memory_limit: int = 0
    spilled: int = 0
    cpu_workers: float = 0.0
    cpu_script: float = 0.0
    script_memory: int = 0
    dashboard: str = ""
    note: str = ""
    schema: int = SCHEMA
