"""The plan: spec + target + identity, resolved for one generation of one cluster. Pure and deterministic.

Everything that is later asked for, paid for or shown is decided here: names, labels, workers, limits, expiry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mayfly.backends.base import Capacity
from mayfly.contract import (
    Environment,
    FrozenTarget,
    Identity,
    Limits,
    Plan,
    Timestamp,
    WorkersPlan,
    YarnPlan,
    iso,
    to_json,
)
from mayfly.errors import PlanError
from mayfly.names import MANAGED_BY, MAX_NAME, cluster_name, label, max_job_length, run_key
from mayfly.spec import JobSpec

SMALLEST_WORKER = 256 * 2**20
"""Bytes; a worker's interpreter with dask, numpy and pandas needs about 140 MiB before it holds any data."""
SLACK_SECONDS = 600.0
"""Added to the sum of all limits, so that expiry never comes before the deadlines it backs up."""
_NOT_INTENTION = ("name", "generation", "owner", "created_at", "expires_at", "labels", "hash", "schema")


def make_plan(
    *,
    job: JobSpec,
    target: FrozenTarget,
    identity: Identity,
    generation: int,
    capacity: Capacity | None,
    home: Path,
    code: str,
    now: float,
    owner: str,
    jobs: int = 1,
    attempts: int = 1,
    max_age: float | None = None,
    environment: Environment | None = None,
    setup: str = "",
    carrier: str = "",
) -> Plan:
    """The plan of one generation.

    `jobs` scripts run on the cluster, each tried at most `attempts` times; from these and the limits follows when the
    cluster expires, unless `max_age` (seconds) says so. `owner` is a fresh random nonce. `environment` is what the
    nodes run; `setup` and `carrier` are the files with which new machines start, see `nodefiles`. PlanError when no
    adjustment makes the job fit the target.
    """
    if job.profile_problem:
        raise PlanError(job.profile_problem)
    if target.name not in job.targets:
        raise PlanError(
            f"job {job.name!r} may not run on target {target.name!r}; allowed: {', '.join(job.targets)} "
            "(key `targets` of its job.yaml)"
        )
    name = cluster_name(prefix=target.prefix, job=job.name, identity=identity, generation=generation)
    if len(name) > MAX_NAME:
        raise PlanError(
            f"the cluster name {name!r} has {len(name)} characters, {MAX_NAME} are allowed; with prefix "
            f"{target.prefix!r} a job's name may have {max_job_length(target.prefix)}: shorten one of them"
        )
    asked = WorkersPlan(
        minimum=job.cluster.workers.minimum,
        maximum=job.cluster.workers.maximum,
        cores=job.cluster.worker.cores,
        memory=job.cluster.worker.memory,
    )
    # On YARN this machine holds the driver alone; how large a container may be, the ResourceManager says at the start.
    workers, notes = fit(asked, target=target, capacity=None if target.launcher == "yarn" else capacity)
    yarn, more = with_yarn(job, target=target)
    if capacity is not None and job.script_memory is not None and job.script_memory > capacity.memory:
        raise PlanError(
            f"script_memory is {job.script_memory / 1e9:.3g} GB, target {target.name!r} has "
            f"{capacity.memory / 1e9:.3g} GB for everything; lower it or choose a larger target"
        )
    limits = Limits(start=job.start_timeout, job=job.timeout, stall=job.stall_timeout)
    expires_at = Timestamp(now + (max_age or longest_life(limits, jobs=jobs, attempts=attempts)))
    run = run_key(identity)
    plan = Plan(
        name=name,
        generation=generation,
        identity=identity,
        run=run,
        owner=owner,
        created_at=Timestamp(now),
        expires_at=expires_at,
        job=job.name,
        target=target,
        labels={
            **MANAGED_BY,
            "installation": label(identity.installation),
            "job": label(job.name),
            "dag": label(identity.dag_id),
            "run": run,
            "generation": str(generation),
            "owner": owner,
            "expires": str(int(expires_at)),
        },
        workers=workers,
        asked=asked,
        notes=(*notes, *more),
        profile=profile_words(job),
        dask=job.cluster.dask,
        env=job.env,
        inputs=resolve(job.inputs, home=home),
        outputs=resolve(job.outputs, home=home),
        limits=limits,
        script_memory=job.script_memory,
        adopt=job.adopt,
        code=code,
        environment=environment,
        yarn=yarn,
        hash="",
        cost_estimate=0.0 if target.backend == "local" else None,
    )
    return replace(plan, hash=intention(plan))


def intention(plan: Plan) -> str:
    """SHA-256 of what the plan means to do: all but names, nonce, times and the generation."""
    data = to_json(plan)
    assert isinstance(data, dict)
    kept = {key: value for key, value in data.items() if key not in _NOT_INTENTION}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def longest_life(limits: Limits, *, jobs: int, attempts: int) -> float:
    """Seconds after which nothing of a run can still be wanted: the sum of all that it may spend."""
    return limits.start + jobs * attempts * (limits.start + limits.job) + limits.collect + limits.delete + SLACK_SECONDS


def resolve(places: Mapping[str, str], *, home: Path) -> dict[str, str]:
    """Named inputs or outputs: a relative path is below the project's home, a URI or absolute path stays."""
    return {name: place if "://" in place else str(home / place) for name, place in places.items()}


def fit(asked: WorkersPlan, *, target: FrozenTarget, capacity: Capacity | None) -> tuple[WorkersPlan, tuple[str, ...]]:
    """The largest part of what was asked that the target holds and allows, and a note when that is less.

    Cores first: a worker gets at most the target's cores, and as many workers stay as have cores of their own (at least
    one). Then memory: they share what there is, none gets more than was asked. `capacity` None = made to measure, so
    that only the target's own caps count. PlanError when not even one smallest worker fits.
    """
    cores, count, memory = asked.cores, asked.maximum, min(asked.memory, target.max_worker_memory or asked.memory)
    count = min(count, target.max_workers or count)
    least = min(asked.memory, SMALLEST_WORKER)
    if capacity is not None:
        cores = min(cores, capacity.cores)
        count = max(1, min(count, capacity.cores // cores, capacity.memory // least))
        memory = min(memory, capacity.memory // count)
    if memory < least:
        raise PlanError(
            f"target {target.name!r} has {memory / 1e6:.0f} MB for a worker; the smallest that can run needs "
            f"{SMALLEST_WORKER / 1e6:.0f} MB"
        )
    fitted = WorkersPlan(minimum=min(asked.minimum, count), maximum=count, cores=cores, memory=memory)
    return (fitted, ()) if fitted == asked else (fitted, (f"target {target.name}: asked {asked}, fitted {fitted}",))


def with_yarn(job: JobSpec, *, target: FrozenTarget) -> tuple[YarnPlan | None, tuple[str, ...]]:
    """The target's settings of YARN with the job's above them; a note instead where there is no YARN."""
    asked = job.cluster.yarn
    given = {name: value for name in type(asked).model_fields if (value := getattr(asked, name)) is not None}
    if target.launcher == "yarn":
        return replace(target.yarn or YarnPlan(), **given), ()
    if not given:
        return None, ()
    keys = ", ".join(f"{name} {value}" for name, value in given.items())
    return None, (f"target {target.name} has no YARN: cluster.yarn ({keys}) is not used",)


def profile_words(job: JobSpec) -> str:
    """Which values the profile gave, and not the job itself; empty without a profile."""
    if job.cluster.profile is None or job.from_profile is None:
        return ""
    return f"{job.cluster.profile} gave {', '.join(job.from_profile) or 'nothing that the job does not say itself'}"


def describe(plan: Plan) -> tuple[str, ...]:
    """The plan in lines for people: shown by `mayfly plan`, logged before anything is created."""
    cost = "not known" if plan.cost_estimate is None else f"{plan.cost_estimate:.2f} USD"
    stall = f"{plan.limits.stall:.0f} s" if plan.limits.stall else "off"
    lines = [
        f"cluster   {plan.name} (generation {plan.generation}) on target {plan.target.name} ({plan.target.backend})",
        *([f"profile   {plan.profile}"] if plan.profile else []),
        f"workers   {plan.workers}",
        *(f"          {note}" for note in plan.notes),
        *([f"yarn      {_yarn_words(plan.yarn)}"] if plan.yarn else []),
        f"limits    start {plan.limits.start:.0f} s, job {plan.limits.job:.0f} s, stall {stall}",
        f"expires   {iso(plan.expires_at)}, whatever happens",
        f"cost      at most {cost}",
        *(f"input     {name} = {place}" for name, place in plan.inputs.items()),
        *(f"output    {name} = {place}" for name, place in plan.outputs.items()),
    ]
    return tuple(lines)


def _yarn_words(yarn: YarnPlan) -> str:
    words = [
        f"queue {yarn.queue}" if yarn.queue else "the user's default queue",
        f"node label {yarn.node_label}" if yarn.node_label else "",
        f"priority {yarn.priority}" if yarn.priority is not None else "",
        f"containers reach the driver at {yarn.address}" if yarn.address else "",
        *(
            f"{name} ports {first}" + (f"-{last}" if last > first else "")
            for name, (first, last) in (
                ("scheduler", yarn.scheduler_ports),
                ("dashboard", yarn.dashboard_ports),
                ("watchdog", yarn.watchdog_ports),
                ("worker", yarn.worker_ports),
            )
            if last
        ),
    ]
    return ", ".join(word for word in words if word)
