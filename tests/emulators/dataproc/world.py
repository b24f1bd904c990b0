"""The state of the emulated cloud: what exists, what is going on, and the knobs. One lock guards it all; whoever waits
or calls machines does not hold it."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.cloud import dataproc_v1 as sdk
from google.longrunning import operations_pb2
from google.protobuf import any_pb2, empty_pb2

from tests.emulators.dataproc.errors import ApiError, not_found
from tests.emulators.dataproc.faults import Faults
from tests.emulators.dataproc.machines import MachineCluster, Machines
from tests.emulators.dataproc.objects import Objects

State = sdk.ClusterStatus.State
ClusterPb, JobPb, PolicyPb = sdk.Cluster.pb(), sdk.Job.pb(), sdk.AutoscalingPolicy.pb()
StatusPb, JobStatusPb = sdk.ClusterStatus.pb(), sdk.JobStatus.pb()
MetadataPb, OperationStatusPb = sdk.ClusterOperationMetadata.pb(), sdk.ClusterOperationStatus.pb()
Key = tuple[str, str, str]
"""Project, region, name or id."""


@dataclass
class Settings:
    """Seconds of the wall clock, unless said otherwise."""

    create: float = 0.0
    """From the request to RUNNING, beyond what the machines need."""
    delete: float = 0.0
    update: float = 0.0
    job_start: float = 0.0
    """From PENDING to RUNNING."""
    operation_start: float = 0.0
    """An operation is PENDING for so long."""
    late_secondary: int = 1
    """1: secondary workers are booted when the cluster is RUNNING, as on Dataproc; 0: before, as the others."""
    speed: float = 1.0
    """TTLs pass so much faster."""
    list_lag: float = 0.0
    """A new cluster is in no list for so long."""
    master_lost: float = 0.0
    """From the loss of a master to the cluster's ERROR; until then its status is stale."""
    preempt_notice: float = 30.0
    """From the notice to the end of a preempted node."""
    autoscale: float = 0.0
    """Seconds between two looks of the simulated autoscaler; 0 = there is none."""
    output_chunk: int = 1 << 20
    """Bytes of driver output in one object."""
    output_seconds: float = 1.0
    """Driver output is brought to the bucket so often."""
    cluster_quota: int = 0
    """Cluster operations within `quota_seconds`, project and region; 0 = no limit. Google's: 200."""
    job_quota: int = 0
    """Job changes likewise. Google's: 400."""
    read_quota: int = 0
    """Reads likewise. Google's: 7500."""
    quota_seconds: float = 60.0
    cpus: int = 0
    """Cores a region; 0 = no limit."""
    projects: tuple[str, ...] = ()
    """Those that exist; () = all."""


@dataclass
class Operation:
    key: Key
    meta: Any
    done: bool = False
    error: tuple[int, str] | None = None
    response: Any = None

    def to_pb(self) -> operations_pb2.Operation:
        project, region, name = self.key
        pb = operations_pb2.Operation(name=f"projects/{project}/regions/{region}/operations/{name}", done=self.done)
        pb.metadata.Pack(self.meta)
        if self.done and self.error:
            pb.error.code, pb.error.message = self.error
        elif self.done:
            packed = any_pb2.Any()
            packed.Pack(self.response if self.response is not None else empty_pb2.Empty())
            pb.response.CopyFrom(packed)
        return pb


@dataclass
class ClusterEntry:
    key: Key
    pb: Any
    spec: MachineCluster
    made_at: float = field(default_factory=time.time)
    gone_at: float | None = None
    ages_from: float = 0.0
    """Monotonic, as `idle_since`."""
    oldest: float | None = None
    """Seconds from then on, at speed 1."""
    idle_since: float | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Deletion was asked for: whatever boots or runs ends."""
    started: threading.Event = field(default_factory=threading.Event)
    """The thread that makes it has ended."""
    complete: threading.Event = field(default_factory=threading.Event)
    """So has the one that makes its first secondary workers."""
    changing: threading.Lock = field(default_factory=threading.Lock)
    """Held by whoever adds or removes nodes."""
    delete_operation: Operation | None = None
    active: set[str] = field(default_factory=set)
    """Ids of jobs that have not ended."""
    scaled_at: float = 0.0
    how_gone: str = ""
    """delete, auto_delete_ttl or idle_delete_ttl."""

    @property
    def name(self) -> str:
        return self.key[2]

    @property
    def state(self) -> int:
        state: int = self.pb.status.state
        return state


@dataclass
class JobEntry:
    key: Key
    pb: Any
    cluster: ClusterEntry
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass
class World:
    folder: Path
    machines: Machines
    objects: Objects
    settings: Settings = field(default_factory=Settings)
    faults: Faults = field(default_factory=Faults)
    lock: threading.RLock = field(default_factory=threading.RLock)
    clusters: dict[Key, ClusterEntry] = field(default_factory=dict)
    history: list[ClusterEntry] = field(default_factory=list)
    """Every cluster that ever was, in the order of creation."""
    jobs: dict[Key, JobEntry] = field(default_factory=dict)
    operations: dict[Key, Operation] = field(default_factory=dict)
    policies: dict[Key, Any] = field(default_factory=dict)
    requests: dict[tuple[str, str, str, str], Any] = field(default_factory=dict)
    """(verb, project, region, request_id) -> what was answered."""
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(verb, code) -> number."""
    log: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=100_000))
    closing: threading.Event = field(default_factory=threading.Event)
    recent: dict[tuple[str, str, str], deque[float]] = field(default_factory=dict)

    # -- looking up

    def cluster(self, key: Key) -> ClusterEntry:
        entry = self.clusters.get(key)
        if entry is None:
            raise not_found("Cluster", "projects/{}/regions/{}/clusters/{}".format(*key))
        return entry

    def job(self, key: Key) -> JobEntry:
        entry = self.jobs.get(key)
        if entry is None:
            raise not_found("Job", "projects/{}/regions/{}/jobs/{}".format(*key))
        return entry

    # -- changing

    def set_state(self, entry: ClusterEntry, state: int, detail: str = "", substate: int = 0) -> None:
        with self.lock:
            if entry.pb.HasField("status"):
                entry.pb.status_history.append(entry.pb.status)
            status = StatusPb(state=state, detail=detail, substate=substate)
            status.state_start_time.GetCurrentTime()
            entry.pb.status.CopyFrom(status)
            entry.idle_since = None
            if state == State.RUNNING:
                self.idle(entry)

    def idle(self, entry: ClusterEntry) -> None:
        """From now on it is idle, as far as jobs are concerned."""
        entry.idle_since = time.monotonic()
        if entry.pb.config.lifecycle_config.HasField("idle_delete_ttl"):
            entry.pb.config.lifecycle_config.idle_start_time.GetCurrentTime()

    def set_job_state(self, entry: JobEntry, state: int, details: str = "", substate: int = 0) -> None:
        with self.lock:
            if entry.pb.HasField("status"):
                entry.pb.status_history.append(entry.pb.status)
            status = JobStatusPb(state=state, details=details, substate=substate)
            status.state_start_time.GetCurrentTime()
            entry.pb.status.CopyFrom(status)

    def operation(self, entry: ClusterEntry, kind: str, description: str) -> Operation:
        project, region, name = entry.key
        meta = MetadataPb(
            cluster_name=name,
            cluster_uuid=entry.pb.cluster_uuid,
            operation_type=kind,
            description=description,
            labels={key: value for key, value in entry.pb.labels.items() if not key.startswith("goog-")},
        )
        operation = Operation(key=(project, region, str(uuid.uuid4())), meta=meta)
        self._op_state(operation, "PENDING")
        with self.lock:
            self.operations[operation.key] = operation
        return operation

    def begin(self, operation: Operation) -> None:
        with self.lock:
            self._op_state(operation, "RUNNING")

    def end(self, operation: Operation, *, error: ApiError | None = None, response: Any = None) -> None:
        with self.lock:
            if operation.done:
                return
            self._op_state(operation, "DONE")
            operation.error = (error.number, error.message) if error else None
            if response is not None:
                operation.response = type(response)()
                operation.response.CopyFrom(response)
            operation.done = True

    @staticmethod
    def _op_state(operation: Operation, state: str) -> None:
        if operation.meta.HasField("status"):
            operation.meta.status_history.append(operation.meta.status)
        status = OperationStatusPb(
            state=sdk.ClusterOperationStatus.State[state], inner_state=state, details=operation.meta.status.details
        )
        status.state_start_time.GetCurrentTime()
        operation.meta.status.CopyFrom(status)

    def end_job(self, entry: JobEntry, state: int, details: str = "") -> None:
        """Once; what comes later is not told."""
        with self.lock:
            if not entry.ended.is_set():
                entry.ended.set()
                entry.cluster.active.discard(entry.key[2])
                self.set_job_state(entry, state, details)
                entry.pb.done = True

    # -- guarding

    def quota(self, kind: str, project: str, region: str) -> None:
        """RESOURCE_EXHAUSTED when more was asked for within `quota_seconds` than Google allows."""
        limit = getattr(self.settings, f"{kind}_quota")
        if not limit:
            return
        now = time.monotonic()
        with self.lock:
            recent = self.recent.setdefault((kind, project, region), deque())
            while recent and recent[0] < now - self.settings.quota_seconds:
                recent.popleft()
            if len(recent) >= limit:
                title = {"cluster": "Cluster operation", "job": "Job update", "read": "Get job"}[kind]
                raise ApiError(
                    "RESOURCE_EXHAUSTED",
                    f"Quota exceeded for quota metric '{title} requests' and limit '{title} requests per minute per"
                    f" project per region' of service 'dataproc.googleapis.com' for consumer 'project:{project}'.",
                )
            recent.append(now)

    def once(self, verb: str, project: str, region: str, request_id: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, or gave for the same request_id before; call with the lock held."""
        key = (verb, project, region, request_id)
        if request_id and key in self.requests:
            return self.requests[key]
        made = make()
        if request_id:
            self.requests[key] = made
        return made
