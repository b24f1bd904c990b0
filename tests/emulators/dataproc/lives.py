"""What happens to clusters behind the API, in threads of their own: made, updated, deleted, dead, too old."""

from __future__ import annotations

import fnmatch
import io
import tarfile
import threading
import time
from collections.abc import Sequence
from typing import Any

from google.cloud import dataproc_v1 as sdk
from google.protobuf import json_format

from tests.emulators.dataproc import checks, shapes
from tests.emulators.dataproc.errors import ApiError
from tests.emulators.dataproc.faults import Rule
from tests.emulators.dataproc.machines import FaultKind, MachineNode, NodeFailed, init_failed
from tests.emulators.dataproc.world import ClusterEntry, JobEntry, Operation, State, World

DEAD = (State.ERROR, State.DELETING, State.STOPPED, State.STOPPING)
JobState = sdk.JobStatus.State
REASONS = {
    "quota": ("INVALID_ARGUMENT", "Insufficient 'CPUS' quota. Requested 12.0, available 4.0."),
    "stockout": (
        "FAILED_PRECONDITION",
        (
            "The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the"
            " request. '(resource type:compute)'."
        ),
    ),
    "permission": (
        "PERMISSION_DENIED",
        "Required 'compute.instances.create' permission for 'projects/{project}/zones/{zone}/instances/{name}-m'",
    ),
    "subnet": (
        "INVALID_ARGUMENT",
        "The resource 'projects/{project}/regions/{region}/subnetworks/{subnet}' was not found",
    ),
    "agent": (
        "INTERNAL",
        "Operation timed out: Only 0 out of 2 minimum required node managers running.",
    ),
    "internal": ("INTERNAL", "Internal server error."),
}


def quota_message(wanted: float, available: float) -> str:
    return f"Insufficient 'CPUS' quota. Requested {wanted:.1f}, available {max(available, 0):.1f}."


def reason(entry: ClusterEntry, rule: Rule) -> ApiError:
    """The error that a rule gives, by `reason` or by `code` and `message`."""
    project, region, name = entry.key
    gce = entry.pb.config.gce_cluster_config
    code, text = REASONS[rule.get("reason", "internal")]
    values = {"project": project, "region": region, "name": name, "zone": shapes.short(gce.zone_uri)}
    text = text.format(**values, subnet=shapes.short(gce.subnetwork_uri) or "default")
    return ApiError(rule.get("code", code), rule.get("message", text))


def listed(world: World, entry: ClusterEntry) -> bool:
    return time.time() - entry.made_at >= world.settings.list_lag


# ---------------------------------------------------------------- made


def boot(world: World, entry: ClusterEntry, operation: Operation) -> None:
    error: ApiError | None = None
    try:
        _wait(entry, world.settings.operation_start)
        world.begin(operation)
        rules = world.faults.due("boot", entry.name, entry.key[0])
        for rule in rules:
            if rule["do"] == "delay":
                _wait(entry, float(rule["seconds"]))
            elif rule["do"] == "stuck":
                world.faults.hold(rule, entry.cancelled)
            elif rule["do"] == "error":
                raise reason(entry, rule)
        missing = [f"{entry.name}-{rule['node']}" for rule in rules if rule["do"] == "missing"]
        with world.lock:
            for name in missing:
                if name in entry.pb.config.worker_config.instance_names:
                    entry.pb.config.worker_config.instance_names.remove(name)
        nodes = shapes.nodes_of(entry.pb)
        late = [node for node in nodes if node.role == "secondary" and world.settings.late_secondary]
        failing = [rule for rule in rules if rule["do"] in ("init_fails", "init_hangs")]
        if failing and not entry.cancelled.is_set():
            _wait(entry, world.settings.create)
            _init_fails(world, entry, failing[0])
        if not entry.cancelled.is_set():
            began = time.monotonic()
            world.machines.start(entry.spec, [node for node in nodes if node not in late], entry.cancelled)
            _wait(entry, world.settings.create - (time.monotonic() - began))
    except NodeFailed as failed:
        error = ApiError("INVALID_ARGUMENT", _several([failed, *failed.others]))
    except ApiError as refused:
        error = refused
    except Exception as crash:
        error = ApiError("INTERNAL", f"Internal error: {type(crash).__name__}: {crash}")
    with world.lock:
        entry.started.set()
        if error or entry.cancelled.is_set():
            entry.complete.set()
        if entry.cancelled.is_set():
            message = f"Cluster '{entry.name}' was deleted while it was being created."
            world.end(operation, error=ApiError("ABORTED", message))
            return
        world.set_state(entry, State.ERROR if error else State.RUNNING, error.message if error else "")
        world.end(operation, error=error, response=entry.pb)
    if not error:
        for rule in world.faults.due("running", entry.name, entry.key[0]):
            threading.Thread(target=_later, args=(world, entry, rule), daemon=True).start()
        _add(world, entry, late)
        entry.complete.set()


def _add(world: World, entry: ClusterEntry, nodes: Sequence[MachineNode]) -> None:
    """Secondary workers: the cluster is none the worse for one that does not come up."""
    try:
        with entry.changing:
            if nodes and not entry.cancelled.is_set():
                world.machines.add(entry.spec, nodes)
    except Exception as error:
        world.log.append({"time": time.time(), "event": f"{nodes[0].name} did not come up: {error}"})


def _several(failures: Sequence[NodeFailed]) -> str:
    if len(failures) == 1:
        return failures[0].message
    return "Multiple Errors:\n" + "\n".join(f" - {failed.message}" for failed in failures)


def _init_fails(world: World, entry: ClusterEntry, rule: Rule) -> None:
    """An init action fails, or takes too long, in the protocol alone: no machine is asked."""
    actions = entry.spec.init_actions or [("gs://no-such-bucket/none.sh", 600.0)]
    index = int(rule.get("action", 0))
    action, limit = actions[min(index, len(actions) - 1)]
    hangs = rule["do"] == "init_hangs"
    if hangs:
        _wait(entry, float(rule.get("seconds", limit)))
    node = f"{entry.name}-{rule.get('node', 'm')}"
    output = entry.spec.init_output(node, index)
    text = rule.get("output", "+ mkdir -p /opt\nmkdir: cannot create directory: No space left on device\n")
    if not entry.cancelled.is_set():
        world.objects.write(output, text.encode())
        raise NodeFailed(node, init_failed(action=action, output_uri=output, timed_out=hangs), output)


def _wait(entry: ClusterEntry, seconds: float) -> None:
    if seconds > 0:
        entry.cancelled.wait(seconds)


def _later(world: World, entry: ClusterEntry, rule: Rule) -> None:
    _wait(entry, float(rule.get("seconds", 0)))
    if entry.cancelled.is_set():
        return
    if rule["do"] == "error":
        die(world, entry, reason(entry, rule).message)
    else:
        with world.lock:
            names = [node.name for node in shapes.nodes_of(entry.pb)]
        for name in fnmatch.filter(names, f"{entry.name}-{rule.get('node', 'w-0')}")[:1]:
            node_fault(world, entry, name, rule["do"])


def die(world: World, entry: ClusterEntry, detail: str) -> None:
    """A running cluster comes to ERROR; its machines stay, its jobs do not."""
    with world.lock:
        if entry.state in (State.RUNNING, State.UPDATING, State.ERROR_DUE_TO_UPDATE, State.CREATING):
            world.set_state(entry, State.ERROR, detail)
    end_jobs(world, entry, detail)


def node_fault(world: World, entry: ClusterEntry, node: str, kind: FaultKind) -> None:
    """KeyError where there is no such node."""
    with world.lock:
        nodes = {found.name: found for found in shapes.nodes_of(entry.pb)}
    role = nodes[node].role
    if role == "secondary":
        entry.complete.wait()
    world.machines.fault(entry.spec, node, kind)
    if kind in ("cut", "heal") and role == "master":
        stale(world, entry, kind == "cut")
    if kind in ("lose", "preempt"):
        if kind == "preempt":
            entry.cancelled.wait(world.settings.preempt_notice)
            try:
                world.machines.fault(entry.spec, node, "lose")
            except (KeyError, OSError):  # lost or removed within its notice, or the whole cluster gone
                return
        if role == "master":
            stale(world, entry, True)
            _wait(entry, world.settings.master_lost)
            die(world, entry, f"Master instance '{node}' is gone.")
        elif role == "secondary" and not entry.cancelled.is_set():
            _replace(world, entry, node)


def stale(world: World, entry: ClusterEntry, is_it: bool) -> None:
    """Whether Dataproc has lost sight of the master's agent, which reports for the cluster and its jobs."""
    substate = "STALE_STATUS" if is_it else "UNSPECIFIED"
    with world.lock:
        if entry.state == State.RUNNING:
            world.set_state(entry, State.RUNNING, substate=sdk.ClusterStatus.Substate[substate])
        for job in active_jobs(world, entry):
            if job.pb.status.state == JobState.RUNNING:
                world.set_job_state(job, JobState.RUNNING, substate=sdk.JobStatus.Substate[substate])


def _replace(world: World, entry: ClusterEntry, node: str) -> None:
    """The managed instance group makes another one in its place, under another name."""
    with world.lock:
        names = entry.pb.config.secondary_worker_config.instance_names
        if node not in names or entry.state != State.RUNNING:
            return
        names.remove(node)
        shapes.name_instances(entry.pb)
        new = [found for found in shapes.nodes_of(entry.pb) if found.name == names[-1]]
    _add(world, entry, new)


# ---------------------------------------------------------------- changed


def begin_update(world: World, entry: ClusterEntry, changed: Any, graceful: float, operation: Operation) -> None:
    """Call with the lock held."""
    before = {node.name for node in shapes.nodes_of(entry.pb)}
    shapes.name_instances(changed)
    after = {node.name: node for node in shapes.nodes_of(changed)}
    lifecycle_changed = changed.config.lifecycle_config != entry.pb.config.lifecycle_config
    for part in ("labels", "config"):
        entry.pb.ClearField(part)
    entry.pb.labels.update(changed.labels)
    entry.pb.config.CopyFrom(changed.config)
    if lifecycle_changed:
        set_lifecycle(world, entry)
    world.set_state(entry, State.UPDATING)
    new = [node for name, node in after.items() if name not in before]
    threading.Thread(
        target=_update, args=(world, entry, operation, new, sorted(before - set(after)), graceful), daemon=True
    ).start()


def _update(
    world: World, entry: ClusterEntry, operation: Operation, new: Sequence[Any], old: Sequence[str], graceful: float
) -> None:
    error: ApiError | None = None
    world.begin(operation)
    try:
        with entry.changing:
            if new:
                world.machines.add(entry.spec, new)
            if old:
                world.machines.remove(entry.spec, old, graceful)
        _wait(entry, world.settings.update)
    except NodeFailed as failed:
        error = ApiError("INVALID_ARGUMENT", failed.message)
    except Exception as crash:
        error = ApiError("INTERNAL", f"Internal error: {type(crash).__name__}: {crash}")
    with world.lock:
        if entry.state == State.UPDATING:
            world.set_state(
                entry, State.ERROR_DUE_TO_UPDATE if error else State.RUNNING, error.message if error else ""
            )
        world.end(operation, error=error, response=entry.pb)


def switch(world: World, entry: ClusterEntry, operation: Operation, state: int) -> None:
    world.begin(operation)
    _wait(entry, world.settings.update)
    with world.lock:
        if not entry.cancelled.is_set():
            world.set_state(entry, state)
        world.end(operation, response=entry.pb)


def diagnose(world: World, entry: ClusterEntry, operation: Operation, folder: str) -> None:
    world.begin(operation)
    buffer = io.BytesIO()
    with world.lock:
        text = json_format.MessageToJson(entry.pb).encode()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("cluster.json")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    uri = f"{folder.rstrip('/')}/diagnostic_{entry.name}.tar.gz"
    error: ApiError | None = None
    try:
        world.objects.write(uri, buffer.getvalue())
    except OSError as failed:
        error = ApiError("INTERNAL", f"Internal error: {failed}")
    world.end(operation, error=error, response=sdk.DiagnoseClusterResults.pb()(output_uri=uri))


# ---------------------------------------------------------------- gone


def begin_delete(world: World, entry: ClusterEntry, how: str) -> Operation:
    """Call with the lock held."""
    operation = world.operation(entry, "DELETE", "Delete cluster")
    entry.how_gone = how
    world.set_state(entry, State.DELETING)
    entry.cancelled.set()
    entry.delete_operation = operation
    threading.Thread(target=_delete, args=(world, entry, operation), daemon=True).start()
    return operation


def _delete(world: World, entry: ClusterEntry, operation: Operation) -> None:
    world.begin(operation)
    for rule in world.faults.due("shutdown", entry.name, entry.key[0]):
        if rule["do"] == "delay":
            world.closing.wait(float(rule["seconds"]))
        elif rule["do"] == "stuck":
            world.faults.hold(rule, world.closing, float(rule.get("seconds", 1e8)))
        else:
            error = reason(entry, rule)
            end_jobs(world, entry, "Cluster was being deleted.")
            with world.lock:
                world.set_state(entry, State.ERROR, error.message)
                world.end(operation, error=error)
            return
    began = time.monotonic()
    end_jobs(world, entry, "Cluster was deleted while the job was running.")
    entry.started.wait(240)
    world.machines.stop(entry.spec)
    world.closing.wait(max(0.0, world.settings.delete - (time.monotonic() - began)))
    with world.lock:
        if world.clusters.get(entry.key) is entry:
            del world.clusters[entry.key]
        entry.gone_at = time.time()
        world.end(operation)


def end_jobs(world: World, entry: ClusterEntry, why: str) -> None:
    """Jobs of a cluster that is no more: in ERROR at once, whatever their processes do."""
    with world.lock:
        for job in active_jobs(world, entry):
            job.cancelled.set()
            world.end_job(job, JobState.ERROR, why)


def active_jobs(world: World, entry: ClusterEntry) -> list[JobEntry]:
    project, region, _ = entry.key
    return [world.jobs[project, region, job] for job in entry.active]


# ---------------------------------------------------------------- too old


def set_lifecycle(world: World, entry: ClusterEntry) -> None:
    """auto_delete_ttl counts from the request."""
    lifecycle, now = entry.pb.config.lifecycle_config, time.time()
    left: float | None = None
    if lifecycle.HasField("auto_delete_ttl"):
        left = checks.seconds(lifecycle.auto_delete_ttl)
        lifecycle.auto_delete_time.FromNanoseconds(int((now + left) * 1e9))
    elif lifecycle.HasField("auto_delete_time"):
        left = lifecycle.auto_delete_time.ToNanoseconds() / 1e9 - now
    entry.ages_from, entry.oldest = time.monotonic(), left


def watch(world: World) -> None:
    """Ends clusters that are too old or too long idle; runs until the emulator ends."""
    while not world.closing.wait(0.05):
        now = time.monotonic()
        with world.lock:
            entries = list(world.clusters.values())
        for entry in entries:
            how = _overdue(world, entry, now)
            if how:
                with world.lock:
                    if entry.state != State.DELETING and world.clusters.get(entry.key) is entry:
                        begin_delete(world, entry, how)


def _overdue(world: World, entry: ClusterEntry, now: float) -> str:
    with world.lock:
        if entry.oldest is not None and (now - entry.ages_from) * world.settings.speed >= entry.oldest:
            return "auto_delete_ttl"
        lifecycle = entry.pb.config.lifecycle_config
        if entry.state != State.RUNNING or not lifecycle.HasField("idle_delete_ttl"):
            return ""
        if entry.active:
            entry.idle_since = now
        ttl = checks.seconds(lifecycle.idle_delete_ttl) / world.settings.speed
        if entry.idle_since is None or now - entry.idle_since < ttl:
            return ""
    load = world.machines.load(entry.spec)
    if load is not None and load.applications:
        entry.idle_since = now
        return ""
    return "idle_delete_ttl"


def summary(entry: ClusterEntry) -> dict[str, Any]:
    """For the control API."""
    nodes = shapes.nodes_of(entry.pb) if entry.gone_at is None else []
    return {
        "project": entry.key[0],
        "region": entry.key[1],
        "name": entry.name,
        "uuid": entry.pb.cluster_uuid,
        "state": State(entry.state).name if entry.gone_at is None else "",
        "detail": entry.pb.status.detail,
        "labels": dict(entry.pb.labels),
        "made_at": entry.made_at,
        "gone_at": entry.gone_at,
        "how_gone": entry.how_gone if entry.gone_at else "",
        "machines": [node.name for node in nodes],
    }
