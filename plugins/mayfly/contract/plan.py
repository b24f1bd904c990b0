"""plan.json: everything that was decided before anything was created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mayfly.contract.nodes import GcpPlan, NodesPlan
from mayfly.contract.values import SCHEMA, Json, Timestamp


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who asks for a cluster. The same identity always leads to the same names."""

    installation: str
    dag_id: str
    run_id: str
    group: str
    map_index: int = -1


@dataclass(frozen=True, kw_only=True)
class WorkersPlan:
    """`minimum`..`maximum` workers of `cores` threads and `memory` bytes each."""

    minimum: int
    maximum: int
    cores: int
    memory: int

    @property
    def adaptive(self) -> bool:
        return self.maximum > self.minimum

    def __str__(self) -> str:
        count = str(self.minimum) if not self.adaptive else f"{self.minimum} to {self.maximum}"
        return f"{count} x {self.cores} cores / {self.memory / 1e9:.3g} GB"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A packed Python environment in the staging store: a whole interpreter with the job's packages."""

    path: str
    """Below staging: `envs/<key>-<8 digits of sha256>.tar.gz`; the key is a hash of lock, platform and Python."""
    sha256: str
    """Of the archive, in hex: whoever unpacks it checks."""
    bytes: int
    python: str
    """Its version, "3.11.7"."""


@dataclass(frozen=True, kw_only=True)
class YarnPlan:
    """How Dask is started on YARN: the target's settings (`yarn:` of targets.yaml) with the job's (`cluster.yarn`).

    None = YARN's own default. `address` is where containers reach the driver's machine (None = found out). Ports are
    (first, last); (0, 0) = any free one.
    """

    queue: str | None = None
    node_label: str | None = None
    priority: int | None = None
    fast_heartbeat: bool = False
    """Shorten the application master's idle heartbeat: containers come in 2 s instead of 6 s."""
    address: str | None = None
    scheduler_ports: tuple[int, int] = (0, 0)
    dashboard_ports: tuple[int, int] = (0, 0)
    watchdog_ports: tuple[int, int] = (0, 0)
    worker_ports: tuple[int, int] = (0, 0)
    grace: float = 30.0
    """Seconds after which the application ends by itself when its driver is gone."""
    master_not_on: str = ""
    """Regular expression: on a node of such a host name the application master must not stay (it may vanish)."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How often things happen, in seconds. Tests shrink time here, never by patching a clock.

    `poll`: pairs (until age of the wait, interval) for the rescheduling task; the last one holds for ever.
    `poll_inline`: interval where the waiter holds its own process (`dags test`, `mayfly run`).
    """

    poll: tuple[tuple[float, float], ...] = ((60.0, 5.0), (600.0, 10.0), (1e12, 30.0))
    poll_inline: float = 0.5
    lease_ttl: float = 600.0
    lease_ttl_inline: float = 60.0
    status: float = 2.0
    segment: float = 3.0
    stop_grace: float = 10.0
    no_tasks: float = 60.0
    """A job that has run so long without a task on the cluster is told so."""
    last_write: float = 30.0
    """How long the driver tries to write its record before it ends without one."""


@dataclass(frozen=True, kw_only=True)
class FrozenTarget:
    """A target as it was when the run was planned; later tasks never re-read `config/`. Holds no secret.

    `staging` is an absolute fsspec URL. `max_workers` and `max_worker_memory` (bytes) are the platform's caps, whatever
    the backend could give. `options` are the backend's own settings.
    """

    name: str
    backend: str
    launcher: str
    staging: str
    prefix: str = "mayfly"
    connection: str | None = None
    python: str | None = None
    max_workers: int | None = None
    max_worker_memory: int | None = None
    options: Mapping[str, Json] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    waiting: str = "auto"
    """How a task waits for its job: auto, deferred or reschedule."""
    yarn: YarnPlan | None = None
    """Set when the launcher is `yarn`."""
    data: str = ""
    """Absolute path or URL below which relative inputs and outputs are; empty = the project's home."""
    gcp: GcpPlan | None = None
    """Set when the backend is `dataproc`."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds a phase may take; 0 in `stall` turns stall detection off."""

    start: float
    job: float
    stall: float
    collect: float = 600.0
    delete: float = 1800.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """plan.json: everything that is decided before anything is created."""

    name: str
    generation: int
    identity: Identity
    run: str
    """10 hex digits that all generations of one run's cluster share; a label."""
    owner: str
    """Random nonce, also a label: adopting and deleting need it, not only the name."""
    created_at: Timestamp
    expires_at: Timestamp
    job: str
    target: FrozenTarget
    labels: Mapping[str, str]
    workers: WorkersPlan
    asked: WorkersPlan
    notes: tuple[str, ...] = ()
    """What was adjusted and why, for people ("asked 4 x 2 cores / 14 GB, fitted 2 x 1 cores / 4 GB")."""
    profile: str = ""
    """Which values the job's profile gave, in words; empty when it has none."""
    dask: Mapping[str, Json] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    limits: Limits
    script_memory: int | None = None
    adopt: bool = True
    code: str
    """Path below staging of the job's folder and the driver: `code/<hash>.zip`."""
    environment: Environment | None = None
    """What the nodes run; None = the interpreter that is there."""
    yarn: YarnPlan | None = None
    nodes: NodesPlan | None = None
    """Machines that are made for this run; None where they are there anyway."""
    hash: str
    """Of everything above but the nonce, the times and the generation; equal hash = the same intention."""
    cost_estimate: float | None = None
    """USD until `expires_at`; 0 on a machine that is there anyway, None when not known."""
    schema: int = SCHEMA
