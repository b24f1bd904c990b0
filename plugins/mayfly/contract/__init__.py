"""What the orchestrator and the cluster say to each other: the content of every file of the run directory.

Pure data: frozen dataclasses and their JSON form. The supervisor on the cluster imports this module, so it needs
nothing but the standard library.

Reading is generous, writing is exact: unknown keys are ignored and missing keys take their default, so that a reader
understands the schema before its own and survives one key more (an upgrade in mid-run must not lose a cluster). A
missing key *without* a default, or a value of the wrong type, raises `ContractError`.

Times are POSIX seconds in memory and ISO-8601 UTC in JSON; sizes are bytes; durations are seconds.
"""

from mayfly.contract.cluster import (
    Closing,
    CreateCall,
    CreateProgress,
    CreateReturn,
    Deleting,
    Notified,
    Receipt,
    Waiting,
)
from mayfly.contract.failure import Broken, Failure, FailureClass
from mayfly.contract.job import Ack, JobOrder, Lease, Phase, Started, Status, Tasks
from mayfly.contract.plan import Environment, FrozenTarget, Identity, Limits, Plan, Timing, WorkersPlan, YarnPlan
from mayfly.contract.record import Outcome, Peaks, Record, YarnAccount, YarnNodeAccount
from mayfly.contract.serial import decode, encode, from_json, to_json
from mayfly.contract.values import SCHEMA, Json, Timestamp, from_iso, iso

__all__ = [
    "SCHEMA",
    "Ack",
    "Broken",
    "Closing",
    "CreateCall",
    "CreateProgress",
    "CreateReturn",
    "Deleting",
    "Environment",
    "Failure",
    "FailureClass",
    "FrozenTarget",
    "Identity",
    "JobOrder",
    "Json",
    "Lease",
    "Limits",
    "Notified",
    "Outcome",
    "Peaks",
    "Phase",
    "Plan",
    "Receipt",
    "Record",
    "Started",
    "Status",
    "Tasks",
    "Timestamp",
    "Timing",
    "Waiting",
    "WorkersPlan",
    "YarnAccount",
    "YarnNodeAccount",
    "YarnPlan",
    "decode",
    "encode",
    "from_iso",
    "from_json",
    "iso",
    "to_json",
]
