"""The steps of a run, as pokes: each does what can be done now and returns at once.

The Airflow operators and the command line call the same steps; they differ only in how they wait between two pokes.
All state is in the run directory, so any process may make the next poke, after any crash, also two at a time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from mayfly.backends.base import ClusterBackend, ClusterView, open_backend
from mayfly.contract import (
    Ack,
    Broken,
    Closing,
    CreateCall,
    CreateProgress,
    CreateReturn,
    Deleting,
    FrozenTarget,
    Identity,
    JobOrder,
    Lease,
    Outcome,
    Plan,
    Record,
    Waiting,
    from_json,
    to_json,
)
from mayfly.contract.nodes import NODE_PYTHON
from mayfly.errors import (
    BackendBusy,
    BackendError,
    BackendRefused,
    ClusterFailed,
    ContractError,
    DeadlinePassed,
    JobFailed,
    NotOurs,
    NotProven,
    Refused,
    StoreError,
)
from mayfly.generation import JobMove, State, job_move, state_of
from mayfly.names import cluster_name
from mayfly.staging.credentials import target_store
from mayfly.staging.rundir import AttemptDir, RunDir
from mayfly.staging.stores import Store
from mayfly.states import ClusterState
from mayfly.steps.attempts import cancel, enforce_deadline, next_look, record_of_the_dead, renew_lease, rest_of_log
from mayfly.steps.deletion import Deletion
from mayfly.steps.poke import Poll, clock_now

LEASE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Handle:
    """All that a later task needs to find its run: what plan returns. Holds no secret. With `owner`, the plan's nonce,
    its cluster can be deleted even when the staging store is gone."""

    name: str
    target: FrozenTarget
    owner: str = ""

    def to_json(self) -> dict[str, Any]:
        data = to_json(self)
        assert isinstance(data, dict)
        return data

    @classmethod
    def from_json(cls, data: object) -> Handle:
        return from_json(cls, data, where="the plan task's return value")


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """One job to run on the cluster; what is None comes from the plan. `timeout` in seconds."""

    key: str
    script: str
    args: tuple[str, ...] = ()
    timeout: float | None = None
    env: Mapping[str, str] | None = None


class Run:
    """One generation of one run's cluster, seen from the orchestrator."""

    def __init__(self, *, plan: Plan, store: Store, backend: ClusterBackend) -> None:
        self.plan, self.store, self.backend = plan, store, backend
        self.dir = RunDir(store, plan.name)
        self._renewed = 0.0

    @classmethod
    def open(cls, handle: Handle, *, ending: bool = False) -> Run:
        """NotProven when there is no plan: then nobody can say what was made. Who is `ending` the run deletes its
        cluster all the same, if the handle says whose it is, before the error."""
        try:
            store = target_store(handle.target)
            plan = RunDir(store, handle.name).plan()
            if plan is None:
                raise NotProven(
                    f"no plan.json in {store.url}/runs/{handle.name}: what this run made is not known, so its deletion "
                    "cannot be proven. Look for clusters with `mayfly ls`, end them with `mayfly reap`"
                )
        except (StoreError, NotProven):
            if ending and handle.owner:
                _end_unproven(open_backend(handle.target), handle.name, owner=handle.owner)
            raise
        return cls(plan=plan, store=store, backend=open_backend(plan.target))

    def state(self) -> State:
        return state_of(
            plan=True,
            closing=self._is_closing(),
            receipt=self.store.get(f"{self.dir.root}/receipt.json") is not None,
        )

    def _is_closing(self) -> bool:
        """A closing.json that is damaged asks for the same."""
        return self.store.get(f"{self.dir.root}/closing.json") is not None

    def _closing(self) -> Closing | None:
        """None also when it is damaged: then nobody knows since when."""
        with suppress(ContractError):
            return self.dir.closing()
        return None

    # -- create

    def create(self, by: str) -> Poll:
        """Make the cluster, or adopt ours. Done when it is running.

        Refused when the generation is closing; ClusterFailed when it came up broken; DeadlinePassed.
        """
        if self.state() is not State.OPEN:
            return self._undo_create()
        calls = self.dir.calls()
        lines: tuple[str, ...] = ()
        if any(returned and returned.called for _, returned in calls):
            view = self.backend.describe(self.plan.name)
        else:  # what the call itself says is enough: a look right after it may not show the cluster yet
            view = self._call_create(number=len(calls) + 1, by=by)
            if self._is_closing():
                return self._undo_create()
            lines = (f"cluster {self.plan.name}: {view.state} ({view.detail})",)
            calls = self.dir.calls()
        told, progress = self._progress(view)
        lines += told
        if view.state is ClusterState.RUNNING and not view.missing:
            return Poll(done=True, lines=lines, result=view)
        if view.state not in (ClusterState.CREATING, ClusterState.RUNNING):
            self._explain(view, lines)
        waited = time.time() - calls[0][0].at
        if waited > self.plan.limits.start:
            raise DeadlinePassed(
                f"cluster {self.plan.name} is still {view.state} after {waited:.0f} s (start_timeout "
                f"{self.plan.limits.start:.0f} s): {view.detail}{self._set_up()}"
            )
        return Poll(done=False, lines=lines, progress=progress)

    def _progress(self, view: ClusterView) -> tuple[tuple[str, ...], str]:
        """What nodes say of themselves and how far the cluster is, each once, whoever pokes."""
        now = f"cluster {view.state}: {view.detail}"
        if self.plan.nodes is None:
            return (), now
        before = self.dir.progress()
        new = [node for node in self.dir.nodes() if node not in before.nodes]
        lines = tuple(self.dir.node_report(node).line for node in new)
        gateway = view.gateway or before.gateway
        if new or now != before.shown or gateway != before.gateway:
            self.dir.put("progress.json", CreateProgress(shown=now, nodes=(*before.nodes, *new), gateway=gateway))
        return lines, now if now != before.shown else ""

    def _set_up(self) -> str:
        """Which machines have come so far that they could say so, where machines are made."""
        if self.plan.nodes is None:
            return ""
        return f"; set up so far: {', '.join(self.dir.nodes()) or 'no machine has said so'}"

    def _explain(self, view: ClusterView, lines: tuple[str, ...]) -> NoReturn:
        """Ask why it did not come up, while there is something to ask, and write that down for the report."""
        failure = self.backend.explain(self.plan.name)
        if failure is not None:
            self.dir.create("broken.json", Broken(failure=failure, at=clock_now()))
        said = f"cluster {self.plan.name} is {view.state} before it was ever ready"
        raise ClusterFailed(said if failure else f"{said}: {view.detail}", failure=failure, lines=lines)

    def _require_open(self) -> None:
        state = self.state()
        if state is not State.OPEN:
            raise Refused(
                f"generation {self.plan.generation} of this run's cluster ({self.plan.name}) is {state}; nothing can "
                "start in it. To run again, clear the whole group (plan and everything after it): that opens the next "
                "generation"
            )

    def _call_create(self, *, number: int, by: str) -> ClusterView:
        """Announce the call, look whether it is still wanted, call, note the return: in this order.

        The caller looks again: whoever closed the generation in between may have listed too early.
        """
        call = CreateCall(name=self.plan.name, owner=self.plan.owner, at=clock_now(), by=by)
        while not self.dir.create(f"calls/{number}.json", call):
            number += 1
        try:
            self._require_open()
        except Refused as error:
            self.dir.create(f"calls/{number}.done.json", CreateReturn(at=clock_now(), called=False, detail=str(error)))
            raise
        try:
            view = self.backend.create(self.plan)
        except (BackendBusy, BackendRefused, NotOurs) as error:
            if getattr(error, "sure", True):  # nothing was made, and nothing will be: nobody needs to wait for it
                self.dir.create(
                    f"calls/{number}.done.json", CreateReturn(at=clock_now(), called=False, detail=str(error))
                )
            raise
        if self._is_closing():
            # Before the return is noted: a delete that reads "returned" must also read that the cluster was seen.
            self.dir.create("deleting.json", Deleting(found=(self.plan.name,), at=clock_now()))
        self.dir.create(f"calls/{number}.done.json", CreateReturn(at=clock_now(), detail=view.detail))
        return view

    def _undo_create(self) -> Poll:
        """Nobody wants this cluster any more: not done until nothing of its name is there, then Refused."""
        view = self.backend.describe(self.plan.name)
        if view.state is not ClusterState.ABSENT:
            self.dir.create("deleting.json", Deleting(found=(self.plan.name,), at=clock_now()))
            view = self.backend.delete(self.plan.name, owner=self.plan.owner)
        if view.state is not ClusterState.ABSENT:
            closing = self._closing()
            if closing is not None and time.time() > closing.at + self.plan.limits.delete:
                raise DeadlinePassed(
                    f"cluster {self.plan.name} was closed while it was being created and cannot be deleted: it is "
                    f"{view.state}: {view.detail}. Run: mayfly delete {self.plan.name}"
                )
            return Poll(done=False, progress=f"closed meanwhile, deleting it again: {view.state}: {view.detail}")
        self._require_open()
        raise AssertionError("unreachable: a generation never opens again")

    # -- job

    def job(self, request: JobRequest, *, try_number: int, inline: bool, by: str) -> Poll:
        """Start or watch the job's attempt; done with its `Record` when it succeeded.

        JobFailed (with the failure's class, evidence and advice) when it failed; Refused without a living cluster.
        """
        self._require_open()
        number = self.dir.last_attempt(request.key)
        attempt = self.dir.attempt(request.key, number)
        record = attempt.record() if number else None
        ack = attempt.ack() if record else None
        move = job_move(
            last_attempt=number,
            ended=record is not None,
            final=record is not None and not (record.failure and record.failure.retryable),
            acknowledged_by=ack.by_try if ack else None,
            try_number=try_number,
        )
        if move is JobMove.START:
            return self._start(request, number + 1, inline=inline, by=by)
        order = attempt.order()
        assert order is not None
        lines, shown = renew_lease(attempt, order, by=by) if self._lease_due() else ((), "")
        record = record or attempt.record() or record_of_the_dead(attempt, order, self.backend, submit_to=self.dir.url)
        if record is None:
            enforce_deadline(attempt, order, self.backend, by=by)
            again = next_look(attempt, order, self.backend)
            return Poll(done=False, lines=lines, progress=shown, again=again)
        lines = rest_of_log(attempt, after=lines)
        attempt.create("ack.json", Ack(by_try=try_number, at=clock_now()))
        if record.outcome is not Outcome.SUCCESS:
            assert record.failure is not None
            raise JobFailed(record.failure, detail=f"all of it: {attempt.url}", lines=lines)
        seconds = record.ended_at - record.started_at
        if ack is not None and ack.by_try != try_number:
            lines += (f"attempt {number} had succeeded already, on this cluster; it is not run again",)
        lines += (*record.notes, f"{record.job}: success in {seconds:.1f} s")
        return Poll(done=True, lines=lines, result=record)

    def _lease_due(self) -> bool:
        """An object store takes one write a second of one name; a waiter that holds its process pokes more often."""
        now = time.monotonic()
        if not self.plan.target.staging.startswith("file://") and now - self._renewed < LEASE_SECONDS:
            return False
        self._renewed = now
        return True

    def _start(self, request: JobRequest, number: int, *, inline: bool, by: str) -> Poll:
        attempt = self.dir.attempt(request.key, number)
        view = self.backend.describe(self.plan.name)
        if view.state is ClusterState.CREATING:
            return self._wait_until_ready(attempt, view)
        if view.state is not ClusterState.RUNNING:
            raise Refused(
                f"cluster {self.plan.name} is {view.state} ({view.detail}); a job needs a living one. To run again, "
                "clear the whole group (plan and everything after it)"
            )
        for other in self.unended():
            if other.job != request.key:
                return Poll(done=False, progress=f"waiting: job {other.job!r} still runs on this cluster")
        timing = self.plan.target.timing
        limits = self.plan.limits
        order = JobOrder(
            cluster=self.plan.name,
            owner=self.plan.owner,
            job=request.key,
            attempt=number,
            script=request.script,
            args=request.args,
            env=self.plan.env if request.env is None else request.env,
            inputs=self.plan.inputs,
            outputs=self.plan.outputs,
            launcher=self.plan.target.launcher,
            workers=self.plan.workers,
            dask=self.plan.dask,
            limits=limits if request.timeout is None else replace(limits, job=request.timeout),
            script_memory=self.plan.script_memory,
            adopt=self.plan.adopt,
            code=self.plan.code,
            # Where machines are made for the run they have it already, and the driver runs in it.
            environment=None if self.plan.nodes else self.plan.environment,
            yarn=self.plan.yarn,
            carrier=self.plan.nodes.carrier if self.plan.nodes else "",
            python=self._node_python(),
            lease_ttl=timing.lease_ttl_inline if inline else timing.lease_ttl,
            timing=timing,
            expires_at=self.plan.expires_at,
            at=clock_now(),
            by=by,
        )
        if not attempt.create("job.json", order):
            return Poll(done=False, progress=f"attempt {number} was just opened by somebody else; watching it")
        attempt.put("lease.json", Lease(seq=1, writer=by, ttl_s=order.lease_ttl))
        self._require_open()
        self.backend.submit(order, rundir=self.dir.url)
        return Poll(done=False, lines=(f"attempt {number} of {request.key} started: {attempt.url}",))

    def _wait_until_ready(self, attempt: AttemptDir, view: ClusterView) -> Poll:
        """A cluster that came up is being repaired or started anew, or says what nobody here understands."""
        attempt.create("waiting.json", Waiting(at=clock_now(), reason=view.detail))
        waiting = attempt.read(Waiting, "waiting.json")
        assert waiting is not None
        waited = time.time() - waiting.at
        if waited > self.plan.limits.start:
            raise DeadlinePassed(
                f"cluster {self.plan.name} cannot take job {attempt.job} for {waited:.0f} s (start_timeout "
                f"{self.plan.limits.start:.0f} s): it is {view.state}: {view.detail}"
            )
        return Poll(done=False, progress=f"waiting for the cluster: {view.state}: {view.detail}")

    def _node_python(self) -> str:
        if self.plan.nodes is None:
            return ""
        return NODE_PYTHON if self.plan.environment else self.plan.target.python or ""

    # -- collect

    def attempts(self) -> Iterator[AttemptDir]:
        for job in self.dir.jobs():
            for number in range(1, self.dir.last_attempt(job) + 1):
                yield self.dir.attempt(job, number)

    def _understood(self) -> Iterator[tuple[AttemptDir, Record | None]]:
        """Attempts with their records. One whose files are damaged is left out: that is a reason to end a cluster
        without waiting, never to keep it."""
        for attempt in self.attempts():
            try:
                attempt.order()
                record = attempt.record()
            except ContractError:
                continue
            yield attempt, record

    def unended(self) -> list[AttemptDir]:
        return [attempt for attempt, record in self._understood() if record is None]

    def _end_jobs(self, *, by: str, reason: str) -> Poll | None:
        """Cancel what still runs and give it time to write its record; None when nothing is left to wait for."""
        waiting = []
        for attempt in self.unended():
            order = attempt.order()
            assert order is not None
            # A backend that does not say whether it lives is not waited for: the request's own deadline is enough.
            with suppress(BackendError):
                if record_of_the_dead(attempt, order, self.backend) is not None:
                    continue
            if time.time() < cancel(attempt, order, self.backend, by=by, reason=reason):
                waiting.append(f"{attempt.job} (attempt {attempt.number})")
        return (
            Poll(done=False, progress=f"cancelled, waiting for the record of {', '.join(waiting)}") if waiting else None
        )

    def collect(self, by: str) -> Poll:
        """Make sure that each attempt has its record (no job may be running any more); done with all records."""
        waiting = self._end_jobs(by=by, reason="the jobs' tasks have ended") if self.state() is State.OPEN else None
        if waiting:
            return waiting
        records = self.records()
        lines = tuple(
            f"{record.job} attempt {record.attempt}: {record.outcome}, {record.ended_at - record.started_at:.1f} s, "
            f"peak {record.peaks.memory / 1e9:.2f} GB on {record.peaks.workers} workers"
            for record in records
        )
        return Poll(done=True, lines=lines or ("no job ran",), result=records)

    def records(self) -> list[Record]:
        """Of all attempts that ended; a damaged record is left out, and its job then counts as one without."""
        return [record for _, record in self._understood() if record is not None]

    # -- delete

    def delete(self, by: str, reason: str = "") -> Poll:
        """Close the generation, end everything of it (and of those before it), prove that; done with the receipt.

        Idempotent in any state. NotProven or DeadlinePassed when absence could not be shown in time. A store that is
        full, dead or damaged keeps the proof from being written, and its error is raised; it never keeps the cluster.
        """
        try:
            return self._delete(by, reason)
        except StoreError:
            _end_unproven(self.backend, self.plan.name, owner=self.plan.owner)
            raise

    def _delete(self, by: str, reason: str) -> Poll:
        receipt = None
        with suppress(ContractError):  # it proves nothing; what is there is ended, and then it is told
            receipt = self.dir.receipt()
        if receipt is not None:
            self.backend.tidy(self.plan)  # who wrote it may have died before
            return Poll(done=True, lines=(f"already proven: {receipt.rule} ({receipt.by})",), result=receipt)
        closing, taken_up = self._close(by, reason)
        waiting = self._end_jobs(by=by, reason=reason or "the cluster is being deleted")
        if waiting:
            return waiting
        deletion = Deletion(plan=self.plan, rundir=self.dir, backend=self.backend)
        return deletion.poke(closing, taken_up_at=taken_up.at, by=by)

    def _close(self, by: str, reason: str) -> tuple[Closing, Closing]:
        """closing.json, and when `by` took this deletion up. Where the first is damaged nobody knows since when the
        generation is closing: since the second at the latest."""
        now = Closing(at=clock_now(), by=by, reason=reason)
        self.dir.create("closing.json", now)
        closing = self._closing()
        if closing is not None and closing.by == by:
            return closing, closing
        path = f"closing/{hashlib.sha256(by.encode()).hexdigest()[:16]}.json"
        self.dir.create(path, now)
        taken_up = self.dir.read(Closing, path)
        assert taken_up is not None
        return closing or taken_up, taken_up


def _end_unproven(backend: ClusterBackend, name: str, *, owner: str) -> None:
    """Begin to delete a cluster of which nothing can be written down now; whoever comes next proves it."""
    with suppress(NotOurs):  # then ours is not there
        backend.delete(name, owner=owner)


def find_handle(*, job: str, target: FrozenTarget, identity: Identity) -> Handle | None:
    """The newest generation of this run that has a plan, for a task that lost its plan's return value."""
    store = target_store(target)
    found = None
    generation = 1
    while True:
        name = cluster_name(prefix=target.prefix, job=job, identity=identity, generation=generation)
        plan = RunDir(store, name).plan()
        if plan is None:
            return found
        found, generation = Handle(name=name, target=plan.target, owner=plan.owner), generation + 1
