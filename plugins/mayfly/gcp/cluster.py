"""From a plan to what Dataproc is asked for: plain dictionaries in the SDK's snake_case. Pure.

Durations are whole seconds as the SDK's dictionaries take them: {"seconds": 600}.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

from mayfly.contract import JobOrder, Plan
from mayfly.contract.nodes import LONGEST_LIFE, GcpPlan, NodeGroup, NodesPlan
from mayfly.gcp.sizing import STEP_MIB

SHORTEST_LIFE = 600.0
"""Seconds; Dataproc takes no shorter time to live (documented)."""
SHORTEST_IDLE = 300.0
LONGEST_JOB_ID = 100
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_PREEMPTIBILITY = {"spot": "SPOT", "preemptible": "PREEMPTIBLE", "on-demand": "NON_PREEMPTIBLE"}
_DECOMMISSION = 300
"""Seconds a node that goes may hold its containers: workers leave in seconds, but YARN waits for the application."""
_COOLDOWN = 120
"""Seconds between two decisions of the autoscaler; the shortest there is."""


def cluster(plan: Plan, *, now: float) -> dict[str, Any]:
    """The cluster of this plan, as it is asked for at `now` (POSIX seconds). ValueError for a plan without machines."""
    gcp, nodes = plan.target.gcp, plan.nodes
    if gcp is None or nodes is None:
        raise ValueError(f"the plan of {plan.name} says nothing of machines: its target has no `gcp`")
    return {
        "project_id": gcp.project,
        "cluster_name": plan.name,
        "labels": dict(plan.labels),
        "config": {
            "config_bucket": bucket(plan.target.staging),
            "temp_bucket": bucket(plan.target.staging),
            "gce_cluster_config": _network(plan, gcp),
            "software_config": {
                **({} if gcp.custom_image else {"image_version": gcp.image}),
                "properties": properties(nodes),
            },
            "lifecycle_config": {
                "auto_delete_ttl": {"seconds": _bounded(plan.expires_at - now, SHORTEST_LIFE)},
                "idle_delete_ttl": {"seconds": _bounded(gcp.idle_ttl, SHORTEST_IDLE)},
            },
            "endpoint_config": {"enable_http_port_access": gcp.gateway},
            **_machines(nodes, gcp),
            **({"encryption_config": {"gce_pd_kms_key_name": gcp.kms_key}} if gcp.kms_key else {}),
            **({"autoscaling_config": {"policy_uri": policy_name(plan)}} if nodes.autoscaling else {}),
            "initialization_actions": _set_up(plan, nodes),
        },
    }


def properties(nodes: NodesPlan) -> dict[str, str]:
    """Of the cluster's software. What YARN may give is said here and nowhere guessed: the plan has counted with it."""
    node = nodes.primary or nodes.master
    given = {
        "yarn:yarn.nodemanager.resource.memory-mb": node.yarn_mib,
        "yarn:yarn.nodemanager.resource.cpu-vcores": node.yarn_cores,
        "yarn:yarn.scheduler.minimum-allocation-mb": STEP_MIB,
        "yarn:yarn.scheduler.maximum-allocation-mb": node.yarn_mib,
        "yarn:yarn.scheduler.minimum-allocation-vcores": 1,
        "yarn:yarn.scheduler.maximum-allocation-vcores": node.yarn_cores,
        # Python maps much more than it uses; by default YARN would kill a worker for that.
        "yarn:yarn.nodemanager.vmem-check-enabled": "false",
        # A node that says nothing is given up after a minute, not after ten: until then its workers are not replaced.
        "yarn:yarn.nm.liveness-monitor.expiry-interval-ms": 60_000,
        "capacity-scheduler:yarn.scheduler.capacity.resource-calculator": (
            "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator"
        ),
        # The default, 0.1, is less than one application master on a small cluster.
        "capacity-scheduler:yarn.scheduler.capacity.maximum-am-resource-percent": "0.5",
    }
    if nodes.primary is None:
        given["dataproc:dataproc.allow.zero.workers"] = "true"
    elif nodes.secondary is not None and not nodes.autoscaling:
        given["dataproc:am.primary_only"] = "true"  # works by node labels, which autoscaling does not know
    return {key: str(value) for key, value in given.items()}


def metadata(plan: Plan) -> dict[str, str]:
    """What the nodes' set-up is told."""
    environment = plan.environment
    shares = plan.target.gcp.shares if plan.target.gcp else ()
    return {
        "mayfly-staging": plan.target.staging,
        "mayfly-cluster": plan.name,
        "mayfly-environment": environment.path if environment else "",
        "mayfly-environment-sha256": environment.sha256 if environment else "",
        "mayfly-shares": json.dumps(
            [{"mount": s.mount, "export": s.export, "server": s.server, "options": s.options} for s in shares]
        ),
    }


def autoscaling_policy(plan: Plan) -> dict[str, Any] | None:
    """The policy of an adaptive cluster, None for one that keeps its size. Equal content has an equal id, so that
    clusters share it."""
    nodes = plan.nodes
    if nodes is None or nodes.primary is None or not nodes.autoscaling:
        return None
    content: dict[str, Any] = {
        "basic_algorithm": {
            "yarn_config": {
                "graceful_decommission_timeout": {"seconds": _DECOMMISSION},
                "scale_up_factor": 1.0,
                "scale_down_factor": 1.0,
            },
            "cooldown_period": {"seconds": _COOLDOWN},
        },
        "worker_config": _bounds(nodes.primary),
    }
    if nodes.secondary is not None:
        content["secondary_worker_config"] = _bounds(nodes.secondary)
    prefix = plan.target.prefix
    digest = hashlib.sha256(json.dumps([prefix, content], sort_keys=True).encode()).hexdigest()[:16]
    return {"id": f"{prefix}-{digest}", "labels": {"managed-by": "mayfly"}, **content}


def policy_name(plan: Plan) -> str:
    """The policy's full name; empty where there is none."""
    policy, gcp = autoscaling_policy(plan), plan.target.gcp
    return f"projects/{gcp.project}/regions/{gcp.region}/autoscalingPolicies/{policy['id']}" if policy and gcp else ""


def job(order: JobOrder, *, rundir: str) -> dict[str, Any]:
    """The PySpark job that starts this attempt's driver. `rundir` is the run directory's URL."""
    staging = rundir.rpartition("/runs/")[0]
    python = ["--python", order.python] if order.python else []
    return {
        "reference": {"job_id": job_id(order)},
        "placement": {"cluster_name": order.cluster},
        "pyspark_job": {
            "main_python_file_uri": f"{staging}/{order.carrier}",
            "args": [*python, rundir, order.job, str(order.attempt), order.code],
        },
        "labels": {"managed-by": "mayfly", "cluster": order.cluster, "owner": order.owner},
    }


def job_id(order: JobOrder) -> str:
    """`<cluster>-<job>-<attempt>` within Dataproc's rules; a digest where something had to be changed, so that two
    attempts never share one."""
    plain = f"{order.cluster}-{order.job}-{order.attempt}"
    folded = re.sub(r"[^a-zA-Z0-9_-]+", "-", plain)
    if folded == plain and len(plain) <= LONGEST_JOB_ID:
        return plain
    digest = hashlib.sha256(plain.encode()).hexdigest()[:10]
    return f"{folded[: LONGEST_JOB_ID - 11]}-{digest}"


def bucket(staging: str) -> str:
    """Of a gs:// URL."""
    return staging.partition("://")[2].partition("/")[0]


def _network(plan: Plan, gcp: GcpPlan) -> dict[str, Any]:
    given: dict[str, Any] = {
        "internal_ip_only": gcp.internal_ip_only,
        "service_account_scopes": [_SCOPE],
        "metadata": metadata(plan),
    }
    if gcp.zone:
        given["zone_uri"] = gcp.zone
    if gcp.subnet:
        given["subnetwork_uri"] = gcp.subnet
    if gcp.service_account:
        given["service_account"] = gcp.service_account
    if gcp.tags:
        given["tags"] = list(gcp.tags)
    if gcp.shielded:
        given["shielded_instance_config"] = {
            "enable_secure_boot": True,
            "enable_vtpm": True,
            "enable_integrity_monitoring": True,
        }
    return given


def _machines(nodes: NodesPlan, gcp: GcpPlan) -> dict[str, Any]:
    groups = {
        "master_config": nodes.master,
        "worker_config": nodes.primary,
        "secondary_worker_config": nodes.secondary,
    }
    return {key: _group(group, gcp, of=key) for key, group in groups.items() if group is not None}


def _group(group: NodeGroup, gcp: GcpPlan, *, of: str) -> dict[str, Any]:
    disk: dict[str, Any] = {"boot_disk_type": gcp.disk_type, "boot_disk_size_gb": group.disk_gb}
    if group.local_ssds:
        disk |= {"num_local_ssds": group.local_ssds, "local_ssd_interface": "nvme"}
    given = {"num_instances": group.count, "machine_type_uri": group.machine, "disk_config": disk}
    if gcp.custom_image:
        given["image_uri"] = gcp.custom_image
    if of == "secondary_worker_config":
        given["preemptibility"] = _PREEMPTIBILITY[group.pricing]
    return given


def _bounds(group: NodeGroup) -> dict[str, int]:
    return {"min_instances": group.count, "max_instances": group.maximum, "weight": 1}


def _set_up(plan: Plan, nodes: NodesPlan) -> list[dict[str, Any]]:
    if not nodes.setup:
        return []
    limit = max(60, min(3600, math.ceil(plan.limits.start)))
    return [{"executable_file": f"{plan.target.staging}/{nodes.setup}", "execution_timeout": {"seconds": limit}}]


def _bounded(seconds: float, least: float) -> int:
    return math.ceil(min(max(seconds, least), LONGEST_LIFE))
