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
from mayfly.contract.nodes import LONGEST_LIFE, NodeGroup, NodesPlan
from mayfly.errors import PlanError
from mayfly.names import MANAGED_BY, MAX_NAME, cluster_name, label, max_job_length, run_key
from mayfly.spec.job import JobSpec

SMALLEST_WORKER = 256 * 2**20
"""Bytes; a worker's interpreter with dask, numpy and pandas needs about 140 MiB before it holds any data."""
SLACK_SECONDS = 600.0
"""Added to the sum of all limits, so that expiry never comes before the deadlines it backs up."""
SECONDARY = r"-sw-[a-z0-9]{4}(\.|$)"
"""In the names of nodes that may be taken away, as Dataproc makes them."""
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
    nodes, machines = machines_of(workers, target=target, job=job, setup=setup, carrier=carrier)
    if nodes is not None and nodes.autoscaling and nodes.secondary is not None and yarn is not None:
        # By the hosts' names, since labels of YARN, which keep it on primary nodes, do not go with autoscaling.
        yarn = replace(yarn, master_not_on=yarn.master_not_on or SECONDARY)
    limits = Limits(start=job.start_timeout, job=job.timeout, stall=job.stall_timeout)
    expires_at = Timestamp(now + (max_age or longest_life(limits, jobs=jobs, attempts=attempts)))
    if target.gcp is not None and expires_at - now > LONGEST_LIFE:
        raise PlanError(
            f"the run may take {(expires_at - now) / 86400:.1f} days (start, {jobs} jobs with up to {attempts} "
            f"attempts, deletion), and Dataproc lets no cluster live longer than {LONGEST_LIFE / 86400:.0f}; "
            "lower `timeout` or `retries` of the job, or run fewer jobs on one cluster"
        )
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
        notes=(*notes, *more, *machines),
        profile=profile_words(job),
        dask=job.cluster.dask,
        env=job.env,
        inputs=resolve(job.inputs, target=target, home=home),
        outputs=resolve(job.outputs, target=target, home=home),
        limits=limits,
        script_memory=job.script_memory,
        adopt=job.adopt,
        code=code,
        environment=environment,
        yarn=yarn,
        nodes=nodes,
        hash="",
        cost_estimate=0.0 if target.backend == "local" else None,
    )
    return replace(plan, hash=intention(plan))


def machines_of(
    workers: WorkersPlan, *, target: FrozenTarget, job: JobSpec, setup: str, carrier: str
) -> tuple[NodesPlan | None, tuple[str, ...]]:
    """The machines that are made for the run, where there are such, and notes on them. PlanError when none fits."""
    if target.gcp is None:
        return None, ()
    from mayfly.gcp.sizing import plan_nodes

    nodes, notes = plan_nodes(workers, gcp=target.gcp, launcher=target.launcher, script_memory=job.script_memory)
    return replace(nodes, setup=setup, carrier=carrier), notes


def intention(plan: Plan) -> str:
    """SHA-256 of what the plan means to do: all but names, nonce, times and the generation."""
    data = to_json(plan)
    assert isinstance(data, dict)
    kept = {key: value for key, value in data.items() if key not in _NOT_INTENTION}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def longest_life(limits: Limits, *, jobs: int, attempts: int) -> float:
    """Seconds after which nothing of a run can still be wanted: the sum of all that it may spend."""
    return limits.start + jobs * attempts * (limits.start + limits.job) + limits.collect + limits.delete + SLACK_SECONDS


def resolve(places: Mapping[str, str], *, target: FrozenTarget, home: Path) -> dict[str, str]:
    """Named inputs or outputs: a relative path is below the target's `data`, else below the project's home; a URI or an
    absolute path stays. PlanError where the cluster does not have this project's folder."""
    return {name: _place(name, place, target=target, home=home) for name, place in places.items()}


def _place(name: str, place: str, *, target: FrozenTarget, home: Path) -> str:
    if "://" in place or place.startswith("/"):
        return place
    if target.data:
        return f"{target.data}/{place}"
    if target.gcp is not None:
        raise PlanError(
            f"{name}: {place!r} is a relative path, and machines of target {target.name!r} have no folder of this "
            "project; write a URI, or give the target `data: gs://...`, from which relative paths then count"
        )
    return str(home / place)


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
    cost = "not known" if plan.cost_estimate is None else f"at most {plan.cost_estimate:.2f} USD"
    stall = f"{plan.limits.stall:.0f} s" if plan.limits.stall else "off"
    lines = [
        f"cluster   {plan.name} (generation {plan.generation}) on target {plan.target.name} ({plan.target.backend})",
        *([f"profile   {plan.profile}"] if plan.profile else []),
        f"workers   {plan.workers}",
        *(f"          {note}" for note in plan.notes),
        *(f"machines  {line}" for line in machine_words(plan.nodes)),
        *([f"yarn      {_yarn_words(plan.yarn)}"] if plan.yarn else []),
        f"limits    start {plan.limits.start:.0f} s, job {plan.limits.job:.0f} s, stall {stall}",
        f"expires   {iso(plan.expires_at)}, whatever happens",
        f"cost      {cost}",
        *(f"input     {name} = {place}" for name, place in plan.inputs.items()),
        *(f"output    {name} = {place}" for name, place in plan.outputs.items()),
    ]
    return tuple(lines)


def machine_words(nodes: NodesPlan | None) -> list[str]:
    """One line for each kind of machine that is made for the run."""
    groups = [("master", nodes.master), ("worker", nodes.primary), ("secondary", nodes.secondary)] if nodes else []
    return [_group_words(what, group) for what, group in groups if group is not None]


def _group_words(what: str, group: NodeGroup) -> str:
    count = str(group.count) if group.maximum == group.count else f"{group.count} to {group.maximum}"
    words = [
        f"{what}: {count} x {group.machine} ({group.cores} cores, {group.memory / 2**30:.3g} GiB)",
        f"{group.yarn_mib / 1024:.3g} GiB and {group.yarn_cores} cores of each for YARN" if group.yarn_mib else "",
        f"{group.local_ssds} local SSDs" if group.local_ssds else "",
        group.pricing if group.pricing != "on-demand" else "",
    ]
    return ", ".join(word for word in words if word)


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
