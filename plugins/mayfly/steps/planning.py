"""The first step of a run: settle which generation is ours, and write its plan before anything is created."""

from __future__ import annotations

import os
import secrets
import time
from itertools import count
from pathlib import Path
from typing import Any

from mayfly.backends.base import ClusterBackend, open_backend
from mayfly.contract import FrozenTarget, Identity, Plan
from mayfly.environments.staging import look, upload
from mayfly.errors import BackendRefused, CredentialsUnavailable, PlanError, StoreRefused, YarnRefused
from mayfly.generation import PlanMove, plan_move, state_of
from mayfly.names import MANAGED_BY, run_key
from mayfly.plan import describe, make_plan
from mayfly.spec.job import JobSpec
from mayfly.staging.bundle import upload_bundle
from mayfly.staging.credentials import target_store
from mayfly.staging.nodefiles import upload_node_files
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import FsspecStore, require_create_if_absent
from mayfly.steps.lifecycle import Handle, Run
from mayfly.steps.poke import Poll
from mayfly.yarn.resource_manager import ResourceManager


def plan_step(
    *,
    job: JobSpec,
    target: FrozenTarget,
    identity: Identity,
    home: Path,
    by: str,
    jobs: int = 1,
    attempts: int = 1,
    max_age: float | None = None,
) -> Poll:
    """One poke of plan; done with a `Handle`.

    Not done while an older generation is being ended: one that is closing, has expired, or meant something else.
    InputError when the job cannot run on the target; nothing is created then.
    """
    _require_hadoop_client(target)
    backend = open_backend(target)

    def draft(generation: int, **uploaded: Any) -> Plan:
        return make_plan(
            job=job,
            target=target,
            identity=identity,
            generation=generation,
            capacity=backend.capacity(),
            home=home,
            now=time.time(),
            owner=secrets.token_hex(8),
            jobs=jobs,
            attempts=attempts,
            max_age=max_age,
            **uploaded,
        )

    draft(1, code="")  # a job that fits nowhere is refused before anything is uploaded for it
    try:
        store = target_store(target)
        if isinstance(store, FsspecStore):
            require_create_if_absent(store)
        places = (*job.inputs.values(), *job.outputs.values())
        staged = look(job=job.name, target=target, home=home, store=store, places=places)
        if target.gcp is not None:
            _require_listing(backend, identity)
        uploaded: dict[str, Any] = {"code": upload_bundle(store, job.folder)}
        packages = ""
        if staged is not None:
            uploaded["environment"], packages = upload(staged, store=store)
        if target.gcp is not None:
            uploaded["setup"], uploaded["carrier"] = upload_node_files(store, home)
    except StoreRefused as error:  # nothing has been made yet, so nobody needs to wait for a permission
        raise PlanError(f"target {target.name!r}: {error}") from error

    for generation in count(1):
        new = draft(generation, **uploaded)
        rundir = RunDir(store, new.name)
        rundir.create("plan.json", new)
        plan = rundir.plan()
        assert plan is not None
        closing = store.get(f"{rundir.root}/closing.json") is not None  # damaged or not
        move = plan_move(
            state_of(plan=True, closing=closing, receipt=rundir.receipt() is not None),
            same_hash=plan.hash == new.hash,
            expired=time.time() > plan.expires_at,
        )
        if move is PlanMove.ADOPT:
            adopted = () if plan.owner == new.owner else ("adopted this run's open generation",)
            said = (packages,) if packages else ()
            lines = (*describe(plan), *said, *adopted, f"run directory {rundir.url}")
            return Poll(done=True, lines=lines, result=Handle(name=plan.name, target=plan.target, owner=plan.owner))
        if move is PlanMove.END:
            ending = Run(plan=plan, store=store, backend=open_backend(plan.target)).delete(by, reason="planned anew")
            if not ending.done:
                return Poll(
                    done=False, lines=ending.lines, progress=f"ending generation {generation}: {ending.progress}"
                )
    raise AssertionError("unreachable: count() does not end")


def _require_listing(backend: ClusterBackend, identity: Identity) -> None:
    """Whoever may not list could make a cluster and never prove that it is gone; and a region that does not exist is
    found out here, too. PlanError."""
    try:
        backend.find({**MANAGED_BY, "run": run_key(identity)})
    except (BackendRefused, CredentialsUnavailable) as error:
        raise PlanError(f"clusters could be made and not be looked after: {error}") from error


def _require_hadoop_client(target: FrozenTarget) -> None:
    """Where the driver will run on this machine: without the cluster's configuration here no job could start, nor could
    anybody prove afterwards that nothing of it is left. Asks nothing. PlanError."""
    if target.launcher != "yarn" or target.backend != "local":
        return
    try:
        ResourceManager.find(os.environ)
    except YarnRefused as error:
        raise PlanError(
            f"target {target.name!r} needs this machine to be a node of a Hadoop cluster: {error}"
        ) from error
