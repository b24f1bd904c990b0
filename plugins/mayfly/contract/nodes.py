"""Machines of a cluster that is made for one run: what the plan says of them. Pure data, part of the contract.

Memory of machines is in bytes, of YARN in MiB (its own unit), disks in GB (10^9 bytes, as clouds sell them).
"""

from __future__ import annotations

from dataclasses import dataclass

NODE_ROOT = "/opt/mayfly"
"""Where init actions put things on every node."""
NODE_PYTHON = f"{NODE_ROOT}/env/bin/python3"
"""The job's packed interpreter, at the same path on every node."""

LONGEST_LIFE = 14 * 86400.0
"""Seconds; Dataproc's own bound of every time to live (REST reference of LifecycleConfig)."""


@dataclass(frozen=True, kw_only=True)
class NfsShare:
    """A directory that every node sees at `mount` (below /shared). Without a server it is bound from the local path
    `export`, which then must be there already."""

    mount: str
    export: str
    server: str = ""
    options: str = ""


@dataclass(frozen=True, kw_only=True)
class GcpPlan:
    """`gcp:` of a target: where and how Dataproc clusters are made. Empty = Google's own default. Holds no secret."""

    project: str
    region: str
    zone: str = ""
    image: str = "2.2"
    custom_image: str = ""
    """An image of one's own, made from one of Dataproc's; it brings its version with it."""
    subnet: str = ""
    service_account: str = ""
    """Of the nodes."""
    impersonate: tuple[str, ...] = ()
    """Chain of service accounts through which the orchestrator acts; the last one is who calls."""
    tags: tuple[str, ...] = ()
    kms_key: str = ""
    internal_ip_only: bool = True
    gateway: bool = True
    shielded: bool = True
    families: tuple[str, ...] = ("n2",)
    """Machine families in order of preference."""
    disk_type: str = "pd-balanced"
    disk_gb: int = 100
    local_ssds: int = 0
    secondary: str = ""
    """Workers beyond `primary`: "spot", "preemptible", "on-demand"; empty = all are primary."""
    primary: int = 2
    """How many workers are primary where there are secondary ones."""
    autoscaling: bool = True
    """Of adaptive jobs: nodes come and go with what YARN is asked for."""
    idle_ttl: float = 3600.0
    """Seconds without any job or application after which Dataproc deletes the cluster by itself."""
    shares: tuple[NfsShare, ...] = ()
    endpoint: str = ""
    """host:port in Google's place; the environment variable DATAPROC_EMULATOR_HOST overrides it."""
    emulator: bool = False
    """Nothing of this target is ever asked of Google itself."""
    call_deadline: float = 60.0
    settle: float = 300.0
    """Seconds for which absence must hold where a create call may still be under way, beyond its own deadline: as long
    as Airflow takes to notice a dead task."""


@dataclass(frozen=True, kw_only=True)
class NodeGroup:
    """`count` machines (at most `maximum`, where the cluster grows by itself) of one kind."""

    machine: str
    count: int
    maximum: int
    cores: int
    memory: int
    yarn_mib: int = 0
    """What the NodeManager offers; 0 = none runs there."""
    yarn_cores: int = 0
    disk_gb: int = 100
    local_ssds: int = 0
    pricing: str = "on-demand"
    """or "spot", "preemptible"."""


@dataclass(frozen=True, kw_only=True)
class NodesPlan:
    """The machines of a cluster. Without `primary` it is one machine, the master alone."""

    master: NodeGroup
    primary: NodeGroup | None = None
    secondary: NodeGroup | None = None
    autoscaling: bool = False
    setup: str = ""
    """Path below staging of the init action: `nodes/<hash>.sh`."""
    carrier: str = ""
    """Path below staging of the file that starts the driver: `nodes/<hash>.py`."""


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """nodes/<host>.json of the run directory: what a node's set-up says of itself."""

    node: str
    role: str = ""
    ok: bool = True
    seconds: float = 0.0
    reason: str = ""
    tail: tuple[str, ...] = ()
    """The end of its own output, where it failed."""

    @property
    def line(self) -> str:
        if self.ok:
            return f"node {self.node} is set up ({self.seconds:.1f} s)"
        return f"node {self.node} could not be set up ({self.seconds:.1f} s): {self.reason or 'it does not say why'}"
