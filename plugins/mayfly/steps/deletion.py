"""Deleting a run's clusters, and proving it: see `mayfly.generation` for why in this order."""

from __future__ import annotations

import time
from dataclasses import replace

from mayfly.backends.base import ClusterBackend, ClusterView
from mayfly.contract import Closing, Deleting, Plan, Receipt
from mayfly.errors import DeadlinePassed, NotProven
from mayfly.generation import DeletionFacts, prove_deletion
from mayfly.names import cluster_name
from mayfly.staging.rundir import RunDir
from mayfly.states import ClusterState
from mayfly.steps.poke import Poll, clock_now


class Deletion:
    """Of one generation that is closing, and of whatever older generations of the run left."""

    def __init__(self, *, plan: Plan, rundir: RunDir, backend: ClusterBackend) -> None:
        self.plan, self.rundir, self.backend = plan, rundir, backend
        self._own: ClusterView | None = None
        """What the last look by name found."""
        self._namesake = False
        """The name is somebody else's: two targets with one prefix in one project."""

    def poke(self, closing: Closing, *, by: str) -> Poll:
        """Delete what is there; done with the receipt. NotProven, or DeadlinePassed, when absence cannot be shown."""
        found = self.present()
        if found or self._remembered():
            seen = sorted({*found} or {self.plan.name})
            self.rundir.create("deleting.json", Deleting(found=tuple(seen), at=clock_now()))
        owners = self._owners() if found.keys() - {self.plan.name} else {self.plan.name: self.plan.owner}
        names = set(found) if self._namesake else {self.plan.name, *found}
        views = [self.backend.delete(name, owner=owners[name]) for name in names if name in owners]
        left = {view.name: view for view in views if view.state is not ClusterState.ABSENT}
        if not left:  # else a second listing would say nothing new, and listings are counted
            facts = self._facts(closing)  # before the listing: what happens after it was not listed
            left = self.present()
        if left:
            about = ", ".join(f"{name} {view.state}: {view.detail}" for name, view in sorted(left.items()))
            over = time.time() - closing.at - self.plan.limits.delete
            if over > 0:
                raise DeadlinePassed(
                    f"deletion is not proven {self.plan.limits.delete + over:.0f} s after it began; still there: "
                    f"{about}. End it by hand, then clear delete_cluster, or run: mayfly delete {self.plan.name}"
                )
            return Poll(done=False, progress=f"deleting: {about}")
        return self._prove(facts, by=by)

    def _facts(self, closing: Closing) -> DeletionFacts:
        calls = self.rundir.calls()
        now = clock_now()
        return DeletionFacts(
            asked=bool(calls),
            created=any(returned and returned.called for _, returned in calls),
            pending=any(returned is None for _, returned in calls),
            matched=self.rundir.deleting() is not None,
            expired=now > self.plan.expires_at,
            settle_seconds=self.backend.settle_seconds,
            closing_at=closing.at,
            now=now,
        )

    def _prove(self, facts: DeletionFacts, *, by: str) -> Poll:
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
        view = self._look()
        if view.state is not ClusterState.ABSENT:  # it appeared just now
            return Poll(done=False, progress=f"deleting: {view.name} {view.state}: {view.detail}")
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
        receipt = self.rundir.receipt()
        return Poll(done=True, lines=(f"deletion proven: {proof.rule}",), result=receipt)

    def _remembered(self) -> bool:
        """Whether the backend knows that it had our cluster and deleted it (somebody did while the store was away)."""
        view = self._own
        return view is not None and view.state is ClusterState.ABSENT and view.labels.get("owner") == self.plan.owner

    def present(self) -> dict[str, ClusterView]:
        """Every cluster of this run, up to this generation, that is not proven absent. What a listing shows needs no
        look by name (reads are counted, and many runs are deleted at a time); what it does not show does."""
        wanted = {key: self.plan.labels[key] for key in ("managed-by", "installation", "run")}
        views = {
            view.name: view
            for view in self.backend.find(wanted)
            if int(view.labels.get("generation", "0")) <= self.plan.generation
        }
        listed = views.get(self.plan.name)
        if listed is None or self._is_namesake(listed):
            views[self.plan.name] = self._own = self._look()
        return {name: view for name, view in views.items() if view.state is not ClusterState.ABSENT}

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
        """Names of this run's clusters up to this generation, with the nonces that their plans hold."""
        owners = {self.plan.name: self.plan.owner}
        for generation in range(1, self.plan.generation):
            name = cluster_name(
                prefix=self.plan.target.prefix,
                job=self.plan.job,
                identity=self.plan.identity,
                generation=generation,
            )
            plan = RunDir(self.rundir.store, name).plan()
            if plan is not None:
                owners[name] = plan.owner
        return owners
