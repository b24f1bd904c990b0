"""A simulated autoscaler: asks the machines for YARN's pending memory and adds or removes workers within the bounds of
the cluster's policy. Off unless `autoscale` is set. What Google's algorithm does beyond that is not modelled."""

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
        primary, secondary = target(changed, policy, load)
        config = changed.config
        if (primary, secondary) == (config.worker_config.num_instances, config.secondary_worker_config.num_instances):
            return
        config.worker_config.num_instances = primary
        if secondary or config.HasField("secondary_worker_config"):
            group = config.secondary_worker_config
            group.machine_type_uri = group.machine_type_uri or config.worker_config.machine_type_uri
            group.num_instances = secondary
        entry.scaled_at = time.monotonic()
        graceful = checks.seconds(algorithm.yarn_config.graceful_decommission_timeout)
        operation = world.operation(entry, "UPDATE", "Autoscaling")
        lives.begin_update(world, entry, changed, graceful, operation)


def target(cluster: Any, policy: Any, load: YarnLoad) -> tuple[int, int]:
    """How many primary and secondary workers there should be. Secondary ones come first, and go first."""
    yarn = policy.basic_algorithm.yarn_config
    nodes = [node for node in shapes.nodes_of(cluster) if node.yarn_mib]
    a_node = max((node.yarn_mib for node in nodes), default=1)
    free = sum(node.yarn_mib for node in nodes) - load.allocated_mib
    more = 0
    if load.pending_mib > 0:
        more = math.ceil(load.pending_mib / a_node * yarn.scale_up_factor)
    elif free > a_node:
        more = -math.floor((free / a_node) * yarn.scale_down_factor)
    primary, secondary = (
        cluster.config.worker_config.num_instances,
        cluster.config.secondary_worker_config.num_instances,
    )
    wanted = _within(policy.secondary_worker_config, secondary + more)
    return _within(policy.worker_config, primary + more - (wanted - secondary)), wanted


def _within(limits: Any, number: int) -> int:
    return int(min(max(number, limits.min_instances), max(limits.max_instances, limits.min_instances)))
