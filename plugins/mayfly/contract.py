"""What the orchestrator and the cluster say to each other: the content of every file of the run directory.

Pure data: frozen dataclasses and their JSON form. The supervisor on the cluster imports this module, so it needs
nothing but the standard library.

Reading is generous, writing is exact: unknown keys are ignored and missing keys take their default, so that a reader
understands the schema before its own and survives one key more (an upgrade in mid-run must not lose a cluster). A
missing key *without* a default, or a value of the wrong type, raises `ContractError`.

Times are POSIX seconds in memory and ISO-8601 UTC in JSON; sizes are bytes; durations are seconds.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NewType, TypeAlias, TypeVar, Union, cast

from mayfly.errors import ContractError
from mayfly.nodes import GcpPlan, NodesPlan

SCHEMA = 1
"""Written into every file; a reader accepts its own and the one before."""

Timestamp = NewType("Timestamp", float)
"""POSIX seconds; an ISO-8601 UTC string in JSON."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def iso(at: float) -> str:
    """POSIX seconds as ISO-8601 UTC with milliseconds, e.g. `2026-11-21T10:15:22.123Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_iso(text: str) -> Timestamp:
    """The inverse of `iso`; ValueError when `text` is no ISO-8601 time with a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time without a zone: {text!r}")
    return Timestamp(moment.timestamp())


# ---------------------------------------------------------------- plan


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
    """What was adjusted and why, for people ("asked 4 x 14 GB, fitted 2 x 4 GB")."""
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


# ---------------------------------------------------------------- the cluster's life


@dataclass(frozen=True, kw_only=True)
class CreateCall:
    """calls/<n>.json, written before the n-th create call: what will exist, and who asks for it."""

    name: str
    owner: str
    at: Timestamp
    by: str
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class CreateReturn:
    """calls/<n>.done.json: that call has returned, or was not made after all (`called` is False).

    While it is absent the call may still take effect.
    """

    at: Timestamp
    called: bool = True
    detail: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class CreateProgress:
    """progress.json: what create has told people, so that each thing is told once. A hint: rewritten as it goes."""

    shown: str = ""
    nodes: tuple[str, ...] = ()
    gateway: str = ""
    """An address of the cluster's own web pages."""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Closing:
    """closing.json: from here on nothing may start in this generation."""

    at: Timestamp
    by: str
    reason: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Deleting:
    """deleting.json: delete has seen these clusters; a later try that finds nothing knows that they were there."""

    found: tuple[str, ...]
    at: Timestamp
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """receipt.json: the proof of deletion. `rule` says how absence was shown, `checks` what was looked at."""

    name: str
    generation: int
    owner: str
    created_at: Timestamp | None
    deleted_at: Timestamp
    rule: str
    checks: tuple[str, ...]
    billed_seconds: float
    cost: float | None
    by: str
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Notified:
    """notified/<notifier>.json: this notifier of `notify:` has said how the generation ended."""

    at: Timestamp
    by: str
    schema: int = SCHEMA


# ---------------------------------------------------------------- one attempt of a job


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


class FailureClass(StrEnum):
    USER_ERROR = "user error"
    OUT_OF_MEMORY_WORKER = "out of memory: worker"
    OUT_OF_MEMORY_SCHEDULER = "out of memory: scheduler"
    OUT_OF_MEMORY_SCRIPT = "out of memory: script"
    SCRIPT_KILLED = "script killed from outside"
    WORKER_LOST = "worker lost"
    SCHEDULER_DIED = "scheduler died"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    START_FAILED = "start failed"
    INPUT_MISSING = "input missing"
    OUTPUT_NOT_WRITABLE = "output not writable"
    VERSION_MISMATCH = "version mismatch"
    QUOTA = "quota"
    STOCKOUT = "stockout"
    NETWORK = "network"
    PREEMPTED = "preempted"
    PERMISSION = "permission"
    INIT_ACTION = "init action"
    CLUSTER_LOST = "cluster lost"
    CANCELLED = "cancelled"
    ORCHESTRATOR_LOST = "orchestrator lost"
    DRIVER_DIED = "driver died without a record"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt failed: class, evidence lines (quoted, oldest first), advice, and whether a retry may help."""

    cls: FailureClass
    evidence: tuple[str, ...] = ()
    advice: str = ""
    retryable: bool = False

    def summary(self) -> str:
        lines = [f"{self.cls}", *(f"  | {line}" for line in self.evidence)]
        return "\n".join([*lines, f"  {self.advice}"] if self.advice else lines)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """broken.json: why the cluster never came up, asked before its remains were deleted. Create-if-absent."""

    failure: Failure
    at: Timestamp
    schema: int = SCHEMA


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


# ---------------------------------------------------------------- JSON

T = TypeVar("T")


def encode(value: object) -> bytes:
    """A contract dataclass as UTF-8 JSON, keys in order of declaration."""
    return json.dumps(to_json(value), ensure_ascii=False, indent=1).encode()


def decode(cls: type[T], data: bytes, *, where: str = "") -> T:
    """The inverse of `encode`. ContractError (naming `where`) when `data` is no such object."""
    try:
        return from_json(cls, json.loads(data), where=where)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ContractError(f"{where or cls.__name__}: no complete JSON ({error}); {len(data)} bytes") from error


def to_json(value: Any) -> Json:
    """A contract value as plain JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        return {f.name: _value_to_json(hints[f.name], getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    return cast(Json, value)


def from_json(cls: type[T], data: object, *, where: str = "") -> T:
    """A contract dataclass from plain JSON types; see the module's docstring for what is tolerated."""
    if not isinstance(data, dict):
        raise ContractError(f"{where or cls.__name__}: expected an object, got {type(data).__name__}")
    schema = data.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        raise ContractError(
            f"{where or cls.__name__}: written by a newer Mayfly (schema {schema}, this one reads up to {SCHEMA}); "
            "upgrade this installation"
        )
    hints = _hints(cls)
    known: dict[str, Any] = {}
    for f in dataclasses.fields(cast(Any, cls)):
        if f.name in data:
            known[f.name] = _value_from_json(hints[f.name], data[f.name], where=f"{where or cls.__name__}.{f.name}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ContractError(f"{where or cls.__name__}: no key {f.name!r}")
    return cls(**known)


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _value_to_json(hint: Any, value: Any) -> Json:
    if value is not None and (hint is Timestamp or Timestamp in typing.get_args(hint)):
        return iso(value)
    return to_json(value)


def _value_from_json(hint: Any, value: Any, *, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        others = [arg for arg in args if arg is not type(None)]
        if len(others) != 1:
            return value  # a union of several types is `Json`: anything goes
        return _value_from_json(others[0], value, where=where)
    if hint is Timestamp:
        try:
            return from_iso(value)
        except (TypeError, ValueError) as error:
            raise ContractError(f"{where}: no time: {value!r}") from error
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_json(hint, value, where=where)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError as error:
            raise ContractError(f"{where}: {value!r} is none of {[str(item) for item in hint]}") from error
    if origin is tuple:
        if not isinstance(value, list):
            raise ContractError(f"{where}: expected a list, got {type(value).__name__}")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_value_from_json(args[0], item, where=where) for item in value)
        if len(args) != len(value):
            raise ContractError(f"{where}: expected {len(args)} items, got {len(value)}")
        return tuple(_value_from_json(arg, item, where=where) for arg, item in zip(args, value, strict=True))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ContractError(f"{where}: expected an object, got {type(value).__name__}")
        return {key: _value_from_json(args[1], item, where=f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (str, int, float, bool):
        if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            raise ContractError(f"{where}: expected {hint.__name__}, got {value!r}")
        return value
    return value
