"""The run directory: typed access to its files, the only thing that orchestrator and cluster share."""

from __future__ import annotations

from typing import TypeVar

from mayfly.contract import (
    Ack,
    Broken,
    Closing,
    CreateCall,
    CreateProgress,
    CreateReturn,
    Deleting,
    JobOrder,
    Lease,
    Plan,
    Receipt,
    Record,
    Status,
    decode,
    encode,
)
from mayfly.contract.nodes import NodeReport
from mayfly.errors import ContractError
from mayfly.staging.stores import Store

T = TypeVar("T")


class RunDir:
    """`runs/<cluster name>/` of a staging store: typed access to its files. Holds no state of its own."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.root = store, name, f"runs/{name}"

    @property
    def url(self) -> str:
        return f"{self.store.url}/{self.root}"

    # -- whole files

    def read(self, cls: type[T], path: str) -> T | None:
        """The object at `path`, None when absent. ContractError when it is damaged."""
        data = self.store.get(f"{self.root}/{path}")
        return None if data is None else decode(cls, data, where=f"{self.url}/{path}")

    def create(self, path: str, value: object) -> bool:
        return self.store.create(f"{self.root}/{path}", encode(value))

    def put(self, path: str, value: object) -> None:
        self.store.put(f"{self.root}/{path}", encode(value))

    # -- the cluster's files

    def plan(self) -> Plan | None:
        return self.read(Plan, "plan.json")

    def calls(self) -> list[tuple[CreateCall, CreateReturn | None]]:
        """All create calls that were announced, oldest first, each with its return if that is known."""
        found: list[tuple[CreateCall, CreateReturn | None]] = []
        while (call := self.read(CreateCall, f"calls/{len(found) + 1}.json")) is not None:
            found.append((call, self.read(CreateReturn, f"calls/{len(found) + 1}.done.json")))
        return found

    def broken(self) -> Broken | None:
        return self.read(Broken, "broken.json")

    def closing(self) -> Closing | None:
        return self.read(Closing, "closing.json")

    def deleting(self) -> Deleting | None:
        return self.read(Deleting, "deleting.json")

    def receipt(self) -> Receipt | None:
        return self.read(Receipt, "receipt.json")

    # -- machines

    def nodes(self) -> list[str]:
        """Host names of all nodes whose set-up has said something, sorted. May lag."""
        paths = self.store.list(f"{self.root}/nodes/")
        return [path.rpartition("/")[2].removesuffix(".json") for path in paths]

    def node_report(self, node: str) -> NodeReport:
        """What it said, whatever bytes a program has put into its output; a damaged report is one that says nothing."""
        path = f"{self.root}/nodes/{node}.json"
        said = (self.store.get(path) or b"{}").decode("utf-8", "replace")
        try:
            return decode(NodeReport, said.encode(), where=f"{self.store.url}/{path}")
        except ContractError:
            return NodeReport(node=node)

    def progress(self) -> CreateProgress:
        """What create has shown so far; a hint, like a lease."""
        try:
            return self.read(CreateProgress, "progress.json") or CreateProgress()
        except ContractError:
            return CreateProgress()

    # -- jobs

    def jobs(self) -> list[str]:
        """Keys of all jobs that have an attempt, sorted."""
        paths = self.store.list(f"{self.root}/jobs/")
        return sorted({path.removeprefix(f"{self.root}/jobs/").split("/")[0] for path in paths})

    def last_attempt(self, job: str) -> int:
        """Highest attempt that has a job.json, 0 when there is none. Asks by name, since lists may lag."""
        attempt = 0
        while self.store.get(f"{self.root}/jobs/{job}/{attempt + 1}/job.json") is not None:
            attempt += 1
        return attempt

    def attempt(self, job: str, attempt: int) -> AttemptDir:
        return AttemptDir(self, job, attempt)


class AttemptDir:
    """`jobs/<job>/<attempt>/`: one attempt of one job."""

    def __init__(self, rundir: RunDir, job: str, attempt: int) -> None:
        self.rundir, self.job, self.number = rundir, job, attempt
        self.store = rundir.store
        self.path = f"{rundir.root}/jobs/{job}/{attempt}"

    @property
    def url(self) -> str:
        return f"{self.store.url}/{self.path}"

    def read(self, cls: type[T], name: str) -> T | None:
        data = self.store.get(f"{self.path}/{name}")
        return None if data is None else decode(cls, data, where=f"{self.url}/{name}")

    def create(self, name: str, value: object) -> bool:
        return self.store.create(f"{self.path}/{name}", encode(value))

    def put(self, name: str, value: object) -> None:
        self.store.put(f"{self.path}/{name}", encode(value))

    def order(self) -> JobOrder | None:
        return self.read(JobOrder, "job.json")

    def lease(self) -> Lease | None:
        """None also when half-written: a lease is a hint and is written anew at the next poll."""
        return self._hint(Lease, "lease.json")

    def status(self) -> Status | None:
        return self._hint(Status, "status.json")

    def record(self) -> Record | None:
        return self.read(Record, "record.json")

    def ack(self) -> Ack | None:
        return self.read(Ack, "ack.json")

    def log_segment(self, number: int) -> bytes | None:
        """Output of script and workers, segment `number` (from 0); immutable once there."""
        return self.store.get(f"{self.path}/log/{number:06d}.txt")

    def metrics_segment(self, number: int) -> bytes | None:
        """Time series as JSON lines, segment `number` (from 0)."""
        return self.store.get(f"{self.path}/metrics/{number:06d}.jsonl")

    def _hint(self, cls: type[T], name: str) -> T | None:
        try:
            return self.read(cls, name)
        except ContractError:
            return None
