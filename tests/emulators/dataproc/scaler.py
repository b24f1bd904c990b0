"""A simulated autoscaler: asks the machines for YARN's pending memory and adds or removes secondary workers, as the
cluster's policy says. Off unless `autoscale` is set. What Google's algorithm does beyond that is not modelled."""

from __future__ import annotations

import math
import time
from typing import Any

from tests.emulators.dataproc import checks, lives, shapes
from tests.emulators.dataproc.machines import YarnLoad
from tests.emulators.dataproc.world import ClusterEntry, ClusterPb, State, World


def watch(world: World) -> None:
    while not world.closing.wait(world.settings.autoscale or 0.5):
        if not world.settings.autoscale:
            continue
        with world.lock:
            entries = [entry for entry in world.clusters.values() if entry.state == State.RUNNING]
        for entry in entries:
            policy = world.policies.get((*entry.key[:2], shapes.short(entry.pb.config.autoscaling_config.policy_uri)))
            if policy is not None:
                _look(world, entry, policy)


def _look(world: World, entry: ClusterEntry, policy: Any) -> None:
    algorithm = policy.basic_algorithm
    cooldown = checks.seconds(algorithm.cooldown_period) / world.settings.speed
    load = world.machines.load(entry.spec)
    if load is None or time.monotonic() - entry.scaled_at < cooldown:
        return
    with world.lock:
        if entry.state != State.RUNNING:
            return
        changed = ClusterPb()
        changed.CopyFrom(entry.pb)
        wanted = target(changed, policy, load)
        if wanted == changed.config.secondary_worker_config.num_instances:
            return
        group = changed.config.secondary_worker_config
        group.machine_type_uri = group.machine_type_uri or changed.config.worker_config.machine_type_uri
        group.num_instances = wanted
        entry.scaled_at = time.monotonic()
        graceful = checks.seconds(algorithm.yarn_config.graceful_decommission_timeout)
        operation = world.operation(entry, "UPDATE", "Autoscaling")
        lives.begin_update(world, entry, changed, graceful, operation)


def target(cluster: Any, policy: Any, load: YarnLoad) -> int:
    """How many secondary workers there should be."""
    yarn = policy.basic_algorithm.yarn_config
    nodes = [node for node in shapes.nodes_of(cluster) if node.yarn_mib]
    a_node = max((node.yarn_mib for node in nodes), default=1)
    free = sum(node.yarn_mib for node in nodes) - load.allocated_mib
    now: int = cluster.config.secondary_worker_config.num_instances
    if load.pending_mib > 0:
        now += math.ceil(load.pending_mib / a_node * yarn.scale_up_factor)
    elif free > a_node:
        now -= math.floor((free / a_node) * yarn.scale_down_factor)
    limits = policy.secondary_worker_config
    return int(min(max(now, limits.min_instances), max(limits.max_instances, limits.min_instances)))
