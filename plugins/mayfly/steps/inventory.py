"""What there is on a target, seen from outside Airflow: the first tools of whoever is on call."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mayfly.backends.base import ClusterBackend, ClusterView, open_backend
from mayfly.contract import FailureClass, FrozenTarget, Plan, Receipt, Status, to_json
from mayfly.errors import InputError, MayflyError, NotProven
from mayfly.generation import State
from mayfly.names import MANAGED_BY
from mayfly.staging.credentials import target_store
from mayfly.staging.rundir import RunDir
from mayfly.states import ClusterState
from mayfly.steps.lifecycle import Handle, Run

ABANDONED_SECONDS = 600.0
"""A closing generation or an open one without any sign of life is left alone for this long."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One run and its cluster; `problem` when its run directory cannot be read, and then no `run`. `planned` is False
    when that is so because there is no plan.json: a cluster of another storage, or what is left of a removed folder."""

    name: str
    run: Run | None = None
    plan: Plan | None = None
    state: State | None = None
    cluster: ClusterView | None = None
    receipt: Receipt | None = None
    status: Status | None = None
    problem: str = ""
    planned: bool = True

    @property
    def begun(self) -> float:
        """POSIX seconds; what cannot be read counts as the newest, so that it is seen."""
        return self.plan.created_at if self.plan else math.inf


def place_of(target: FrozenTarget) -> tuple[object, ...]:
    """What tells one place of clusters from another; who asks there, how and how often does not."""
    gcp = target.gcp
    where = (gcp.project, gcp.region, gcp.endpoint, gcp.emulator) if gcp else ()
    return (target.backend, json.dumps(to_json(target.options), sort_keys=True), *where)


def list_runs(target: FrozenTarget, *, beside: Sequence[FrozenTarget] = ()) -> list[Listed]:
    """All runs in the target's staging storage and all clusters that its backend lists, newest first.

    Targets may share a storage. With all of them as `beside`, a run stands in the list of the one that makes clusters
    where the run's plan did, and what is none's (no target leads to its place any more, or its plan cannot be read) in
    the first one's.
    """
    store = target_store(target)
    clusters = {view.name: view for view in open_backend(target).find(MANAGED_BY)}
    places = [place_of(each) for each in beside if each.staging == target.staging] or [place_of(target)]
    names = {path.split("/")[1] for path in store.list("runs/")} | set(clusters)
    found = (_listed(Handle(name=name, target=target), clusters.get(name), places) for name in names)
    return sorted((item for item in found if item is not None), key=lambda item: -item.begun)


def _listed(handle: Handle, cluster: ClusterView | None, places: Sequence[tuple[object, ...]]) -> Listed | None:
    """None when it stands in another target's list. `places`: of the targets that share this storage."""
    here = place_of(handle.target)
    try:
        run = Run.open(handle)
        place = place_of(run.plan.target)
        if here != (place if place in places else places[0]):
            return None
        state = run.state()
        if place != here:  # asked for by name: a receipt stands for what may not be there to be asked any more
            cluster = run.backend.describe(handle.name) if state is not State.CLOSED else None
        if cluster is not None and cluster.labels.get("owner", run.plan.owner) != run.plan.owner:
            cluster = None  # a namesake, made through another target: it stands in that one's list
        last = None
        for attempt in run.attempts():
            last = attempt.status() or last
        return Listed(
            name=handle.name,
            run=run,
            plan=run.plan,
            state=state,
            cluster=cluster,
            receipt=run.dir.receipt(),
            status=last,
        )
    except MayflyError as error:
        if cluster is None and here != places[0]:
            return None
        planned = not isinstance(error, NotProven)
        return Listed(name=handle.name, cluster=cluster, problem=str(error), planned=planned)


def find_run(target: FrozenTarget, given: str) -> Run:
    """The run of a cluster's name, or of a prefix of it that only one has. InputError names what there is."""
    store = target_store(target)
    given = given.rstrip("/").rsplit("/", 1)[-1]
    if RunDir(store, given).plan() is not None:
        return Run.open(Handle(name=given, target=target))
    names = sorted({path.split("/")[1] for path in store.list("runs/")})
    matching = [name for name in names if name.startswith(given)]
    if len(matching) == 1:
        return Run.open(Handle(name=matching[0], target=target))
    if not matching:
        last = f"; the last ones are {', '.join(names[-5:])}" if names else "; there are none yet"
        raise InputError(f"no run {given!r} on target {target.name!r} ({store.url}){last}. `mayfly ls` lists them")
    raise InputError(f"{given!r} is the beginning of {len(matching)} runs: {', '.join(matching[:10])}; give more of it")


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A cluster that nobody wants any more, and why that is certain."""

    name: str
    reason: str
    run: Run | None
    owner: str


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """A run of which nobody can say whether it leaks, and why not."""

    name: str
    problem: str


def leaks(
    target: FrozenTarget, *, beside: Sequence[FrozenTarget] = (), now: float | None = None
) -> Iterator[Leak | Unjudged]:
    """Clusters and open generations of the target that should have ended. Never one that may still be wanted; one whose
    files are damaged hides no other. `beside` as in `list_runs`."""
    now = time.time() if now is None else now
    for item in list_runs(target, beside=beside):
        found = _without_run(item, now) if item.run is None else _judged(item, item.run, now)
        if found is not None:
            yield found


def _without_run(item: Listed, now: float) -> Leak | Unjudged | None:
    labels = item.cluster.labels if item.cluster else {}
    if float(labels.get("expires", "inf")) < now:
        state = "cannot be read" if item.planned else "is gone"
        reason = f"expired, and its run directory {state}"
        return Leak(name=item.name, reason=reason, run=None, owner=labels.get("owner", ""))
    return Unjudged(name=item.name, problem=item.problem) if item.planned else None


def _judged(item: Listed, run: Run, now: float) -> Leak | Unjudged | None:
    facts: dict[str, float | None] = dict.fromkeys(_FACTS)
    problem = ""
    for name, look in _FACTS.items() if item.state is not State.CLOSED else ():  # a receipt leaves nothing to ask
        try:
            facts[name] = look(run, now)
        except MayflyError as error:  # what is known may be enough
            problem = problem or str(error)
    reason = leak_reason(item, **facts, now=now)
    if reason:
        return Leak(name=item.name, reason=reason, run=run, owner=run.plan.owner)
    return Unjudged(name=item.name, problem=problem) if problem else None


def leak_reason(
    item: Listed, *, closing_for: float | None, lease_age: float | None, unasked_for: float | None, now: float
) -> str:
    """Why this run leaks, empty when it does not (or may not). Pure.

    `closing_for`: seconds since closing.json; `lease_age`: seconds since the last driver gave up for lack of an
    orchestrator, None when it did not; `unasked_for`: seconds since plan.json, None when somebody was about
    to create the cluster.
    """
    assert item.plan is not None
    present = item.cluster is not None and item.cluster.state is not ClusterState.ABSENT
    if item.state is State.CLOSED:
        return "it has a receipt, and yet its cluster is there" if present else ""
    if now > item.plan.expires_at:
        return f"expired {now - item.plan.expires_at:.0f} s ago"
    if item.state is State.CLOSING and closing_for is not None and closing_for > ABANDONED_SECONDS:
        return f"its deletion began {closing_for:.0f} s ago and never ended"
    patience = max(item.plan.target.timing.lease_ttl * 2, ABANDONED_SECONDS)
    if lease_age is not None and lease_age > patience:
        return f"no orchestrator has asked for it for {lease_age:.0f} s"
    if item.state is State.OPEN and unasked_for is not None and unasked_for > patience + item.plan.limits.start:
        return f"it was planned {unasked_for:.0f} s ago, and nobody has made its cluster"
    return ""


def _closing_for(run: Run, now: float) -> float | None:
    closing = run.dir.closing()
    return None if closing is None else now - closing.at


def _unasked_for(run: Run, now: float) -> float | None:
    """A lone re-run of the plan task opens a generation that nobody goes on with."""
    return None if run.dir.calls() else now - run.plan.created_at


def _lease_age(run: Run, now: float) -> float | None:
    """Seconds since anybody asked for a run whose last attempt ended for lack of an orchestrator; None when it ended in
    another way, or one has no record: that class is worth a retry, and the next attempt may be running."""
    last, heard = None, 0.0
    for attempt in run.attempts():
        record, ack = attempt.record(), attempt.ack()
        if record is None:
            return None
        heard = max(heard, record.ended_at, ack.at if ack else 0.0)
        if last is None or record.ended_at >= last.ended_at:
            last = record
    if last is None or last.failure is None or last.failure.cls is not FailureClass.ORCHESTRATOR_LOST:
        return None
    return now - heard


_FACTS = {"closing_for": _closing_for, "lease_age": _lease_age, "unasked_for": _unasked_for}
"""What `leak_reason` asks beyond the list, by its parameter."""


def end_leak(leak: Leak, backend: ClusterBackend, *, by: str) -> Receipt | None:
    """One poke at ending a leak; the receipt when it is proven. A cluster without run directory leaves none."""
    if leak.run is None:
        view = backend.delete(leak.name, owner=leak.owner)
        if view.state is not ClusterState.ABSENT:
            raise NotProven(f"cluster {leak.name}: {view.state}: {view.detail}")
        return None
    receipt = leak.run.dir.receipt()
    if receipt is not None:
        return receipt if backend.delete(leak.name, owner=leak.owner).state is ClusterState.ABSENT else None
    poll = leak.run.delete(by, reason=leak.reason)
    return poll.result if poll.done else None
