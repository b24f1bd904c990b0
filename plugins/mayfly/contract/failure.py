"""Why something failed, in the words that people read and Airflow acts on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mayfly.contract.values import SCHEMA, Timestamp


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
