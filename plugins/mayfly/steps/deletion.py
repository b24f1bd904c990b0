"""Deleting a run's clusters, and proving it: see `mayfly.generation` for why in this order."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from mayfly.backends.base import ClusterBackend, ClusterView
from mayfly.contract import Closing, Deleting, Plan, Receipt
from mayfly.errors import ContractError, DeadlinePassed, NotProven
from mayfly.generation import DeletionFacts, prove_deletion
from mayfly.names import cluster_name
from mayfly.staging.rundir import RunDir
from mayfly.states import ClusterState
from mayfly.steps.poke import Poll, clock_now


class Deletion:
    """Of one generation that is closing, and of whatever older generations of the run left."""

    def __init__(self, *, plan: Plan, rundir: RunDir, backend: ClusterBackend) -> None:
        self.plan, self.rundir, self.backend = plan, rundir, backend
        self._namesake = False
        """The name is somebody else's: two targets with one prefix in one project."""

    def poke(self, closing: Closing, *, taken_up_at: float, by: str) -> Poll:
        """Delete what is there; done with the receipt. NotProven, or DeadlinePassed, when absence cannot be shown.

        Ours goes by its name; listing it is needed for the proof alone. `taken_up_at`: POSIX seconds, see `overdue`.
        """
        left, first = self._end_own()
        if first or not left:  # listings are counted: while ours goes, those before it have been asked to
            facts = self._facts(closing)  # before the listing: what happens after it was not listed
            left = self._end_listed() | left
            if not left:
                return self._prove(facts, by=by)
        about = ", ".join(f"{name} {view.state}: {view.detail}" for name, view in sorted(left.items()))
        limit = self.plan.limits.delete
        over = overdue(closing_at=closing.at, taken_up_at=taken_up_at, limit=limit, now=time.time())
        if over > 0:
            raise DeadlinePassed(
                f"deletion is not proven {limit + over:.0f} s after it began; still there: {about}. End it by hand, "
                f"then clear delete_cluster, or run: mayfly delete {self.plan.name}"
            )
        return Poll(done=False, progress=f"deleting: {about}")

    def _end_own(self) -> tuple[dict[str, ClusterView], bool]:
        """Delete this generation's cluster; what is left of it, and whether it was seen for the first time."""
        view = self._look()
        first = (view.state is not ClusterState.ABSENT or self._remembered(view)) and self._note_seen()
        if self._namesake:
            return {}, first
        view = self.backend.delete(self.plan.name, owner=self.plan.owner)
        return ({} if view.state is ClusterState.ABSENT else {view.name: view}), first

    def _end_listed(self) -> dict[str, ClusterView]:
        """Every cluster of this run, up to this generation, that a listing shows, and those before ours deleted."""
        wanted = {key: self.plan.labels[key] for key in ("managed-by", "installation", "run")}
        listed = {
            view.name: view
            for view in self.backend.find(wanted)
            if int(view.labels.get("generation", "0")) <= self.plan.generation
            and not (view.name == self.plan.name and self._is_namesake(view))
        }
        if self.plan.name in listed:
            self._note_seen()
        owners = self._owners() if listed.keys() - {self.plan.name} else {}
        return listed | {name: self.backend.delete(name, owner=owners[name]) for name in listed if name in owners}

    def _note_seen(self) -> bool:
        """Before it is deleted: who finds nothing later knows that it was there. True when nobody had."""
        return self.rundir.create("deleting.json", Deleting(found=(self.plan.name,), at=clock_now()))

    def _facts(self, closing: Closing) -> DeletionFacts:
        calls = self.rundir.calls()
        now = clock_now()
        return DeletionFacts(
            asked=bool(calls),
            created=any(returned and returned.called for _, returned in calls),
            pending=any(returned is None for _, returned in calls),
            matched=self.rundir.store.get(f"{self.rundir.root}/deleting.json") is not None,  # damaged or not
            expired=now > self.plan.expires_at,
            settle_seconds=self.backend.settle_seconds,
            closing_at=closing.at,
            now=now,
        )

    def _prove(self, facts: DeletionFacts, *, by: str) -> Poll:
        view = self._look()
        if view.state is not ClusterState.ABSENT:  # it appeared just now
            return Poll(done=False, progress=f"deleting: {view.name} {view.state}: {view.detail}")
        proof = prove_deletion(facts)
        if proof.unproven:
            raise NotProven(f"cluster {self.plan.name}: {proof.unproven}")
        if proof.wait_until is not None:
            return Poll(
                done=False,
                progress=f"nothing is listed; watching {proof.wait_until - facts.now:.0f} s more for a late create",
            )
        now, calls = clock_now(), self.rundir.calls()
        made = facts.created or facts.pending or facts.matched
        began = calls[0][0].at if calls and made else None
        labels = f"labels run={self.plan.run}, generation <= {self.plan.generation}"
        self.rundir.create(
            "receipt.json",
            Receipt(
                name=self.plan.name,
                generation=self.plan.generation,
                owner=self.plan.owner,
                created_at=began,
                deleted_at=now,
                rule=proof.rule,
                checks=(f"look-up by name {self.plan.name}: absent ({view.detail})", f"listing by {labels}: nothing"),
                billed_seconds=round(now - began, 3) if began else 0.0,
                cost=0.0 if self.plan.target.backend == "local" else None,
                by=by,
            ),
        )
        self.backend.tidy(self.plan)
        try:
            receipt = self.rundir.receipt()
        except ContractError as error:
            raise ContractError(
                f"nothing is left of cluster {self.plan.name} ({proof.rule}), and its receipt is damaged: {error}. "
                f"Remove that file, then run: mayfly delete {self.plan.name}"
            ) from error
        return Poll(done=True, lines=(f"deletion proven: {proof.rule}",), result=receipt)

    def _remembered(self, view: ClusterView) -> bool:
        """Whether the backend knows that it had our cluster and deleted it (somebody did while the store was away)."""
        return view.state is ClusterState.ABSENT and view.labels.get("owner") == self.plan.owner

    def _look(self) -> ClusterView:
        """Our cluster by its name. A name is there once: while it is another owner's, ours is not."""
        view = self.backend.describe(self.plan.name)
        self._namesake = view.state is not ClusterState.ABSENT and self._is_namesake(view)
        if self._namesake:
            return replace(view, state=ClusterState.ABSENT, detail=f"the name is another owner's: {view.detail}")
        return view

    def _is_namesake(self, view: ClusterView) -> bool:
        return view.labels.get("owner", self.plan.owner) != self.plan.owner

    def _owners(self) -> dict[str, str]:
        """Names of this run's clusters before this generation, with the nonces that their plans hold."""
        owners = {}
        for generation in range(1, self.plan.generation):
            name = cluster_name(
                prefix=self.plan.target.prefix,
                job=self.plan.job,
                identity=self.plan.identity,
                generation=generation,
            )
            with suppress(ContractError):
                plan = RunDir(self.rundir.store, name).plan()
                if plan is not None:
                    owners[name] = plan.owner
        return owners


def overdue(*, closing_at: float, taken_up_at: float, limit: float, now: float) -> float:
    """Seconds by which a deletion has passed its `limit`. It is counted for each who takes it up, since deleting may
    only begin then: who had given up before, or died, says nothing of that. Times are POSIX seconds. Pure."""
    return now - max(closing_at, taken_up_at) - limit
