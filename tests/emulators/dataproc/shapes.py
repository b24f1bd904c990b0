"""What Google fills in: the defaults of a cluster's configuration, names of nodes, and what machines are told."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from google.cloud import dataproc_v1 as sdk

from tests.emulators.dataproc import catalogue
from tests.emulators.dataproc.machines import MachineCluster, MachineNode, Role

COMPUTE = "https://www.googleapis.com/compute/v1/projects"
_STATE = sdk.ClusterStatus.State
_PREEMPT = sdk.InstanceGroupConfig.Preemptibility


def short(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def staging_bucket(project: str, region: str) -> str:
    return f"dataproc-staging-{region}-{uuid.uuid5(uuid.NAMESPACE_DNS, project).int % 10**12}-emulated"


def single_node(config: Any) -> bool:
    return not config.worker_config.num_instances and not config.secondary_worker_config.num_instances


def fill(cluster: Any, *, region: str) -> None:
    """Complete a checked Cluster message as Google returns it, in place."""
    config, project = cluster.config, cluster.project_id
    config.config_bucket = config.config_bucket or staging_bucket(project, region)
    config.temp_bucket = config.temp_bucket or config.config_bucket.replace("staging", "temp", 1)
    gce = config.gce_cluster_config
    zone = short(gce.zone_uri) or f"{region}-a"
    gce.zone_uri = f"{COMPUTE}/{project}/zones/{zone}"
    if not gce.subnetwork_uri:
        gce.network_uri = gce.network_uri or f"{COMPUTE}/{project}/global/networks/default"
    if not gce.service_account_scopes:
        gce.service_account_scopes.append("https://www.googleapis.com/auth/cloud-platform")
    if not gce.HasField("internal_ip_only"):
        gce.internal_ip_only = True
    software = config.software_config
    software.image_version = catalogue.image_version(software.image_version) or ""
    if single_node(config) and not config.HasField("worker_config"):
        software.properties["dataproc:dataproc.allow.zero.workers"] = "true"
    _group(config.master_config, project, zone, count=1)
    if config.worker_config.num_instances:
        _group(config.worker_config, project, zone)
    if config.HasField("secondary_worker_config"):
        group = config.secondary_worker_config
        group.machine_type_uri = group.machine_type_uri or config.worker_config.machine_type_uri
        _group(group, project, zone)
        if group.preemptibility == _PREEMPT.PREEMPTIBILITY_UNSPECIFIED:
            group.preemptibility = _PREEMPT.PREEMPTIBLE
        group.is_preemptible = group.preemptibility != _PREEMPT.NON_PREEMPTIBLE
        group.managed_group_config.instance_group_manager_name = f"dataproc-{cluster.cluster_uuid}-sw"
    for action in config.initialization_actions:
        if not action.HasField("execution_timeout"):
            action.execution_timeout.seconds = 600
    if config.endpoint_config.enable_http_port_access:
        base = f"https://{secrets.token_hex(13)}-dot-{region}.dataproc.googleusercontent.com"
        for title, path in (("YARN ResourceManager", "yarn"), ("HDFS NameNode", "hdfs/dfshealth.html")):
            config.endpoint_config.http_ports[title] = f"{base}/{path}/"
    cluster.labels.update(
        {
            "goog-dataproc-cluster-name": cluster.cluster_name,
            "goog-dataproc-cluster-uuid": cluster.cluster_uuid,
            "goog-dataproc-location": region,
        }
    )
    name_instances(cluster)


def _group(group: Any, project: str, zone: str, count: int = 0) -> None:
    group.num_instances = group.num_instances or count
    kind = short(group.machine_type_uri) or "n1-standard-4"
    group.machine_type_uri = f"{COMPUTE}/{project}/zones/{zone}/machineTypes/{kind}"
    group.disk_config.boot_disk_size_gb = group.disk_config.boot_disk_size_gb or 1000
    group.disk_config.boot_disk_type = group.disk_config.boot_disk_type or "pd-standard"
    group.min_cpu_platform = group.min_cpu_platform or "AUTOMATIC"
    if group.preemptibility == _PREEMPT.PREEMPTIBILITY_UNSPECIFIED and count:
        group.preemptibility = _PREEMPT.NON_PREEMPTIBLE


def name_instances(cluster: Any) -> None:
    """Make each group's list of names as long as its number of instances; names that stay, stay."""
    name, config = cluster.cluster_name, cluster.config
    if not config.master_config.instance_names:
        config.master_config.instance_names.append(f"{name}-m")
    if config.HasField("worker_config"):
        names = config.worker_config.instance_names
        del names[config.worker_config.num_instances :]
        names.extend(f"{name}-w-{i}" for i in range(len(names), config.worker_config.num_instances))
    if config.HasField("secondary_worker_config"):
        names = config.secondary_worker_config.instance_names
        del names[config.secondary_worker_config.num_instances :]
        while len(names) < config.secondary_worker_config.num_instances:
            names.append(f"{name}-sw-{secrets.token_hex(2)}")


def nodes_of(cluster: Any) -> list[MachineNode]:
    """All nodes that its groups name."""
    config = cluster.config
    alone = single_node(config)
    found = [
        _node(name, "master", config.master_config, config, yarn=alone) for name in config.master_config.instance_names
    ]
    found += [_node(name, "worker", config.worker_config, config) for name in config.worker_config.instance_names]
    group = config.secondary_worker_config
    return found + [_node(name, "secondary", group, config) for name in group.instance_names]


def _node(name: str, role: Role, group: Any, config: Any, *, yarn: bool = True) -> MachineNode:
    cores, memory = catalogue.machine(short(group.machine_type_uri)) or (4, 15 * catalogue.GIB)
    properties = config.software_config.properties
    mib = properties.get("yarn:yarn.nodemanager.resource.memory-mb", "") or str(int(memory * 0.8) // 2**20)
    vcores = properties.get("yarn:yarn.nodemanager.resource.cpu-vcores", "") or str(cores)
    return MachineNode(
        name=name,
        role=role,
        cores=cores,
        memory=memory,
        yarn_mib=int(mib) if yarn else 0,
        yarn_cores=int(vcores) if yarn else 0,
        preemptible=group.is_preemptible,
    )


def machine_cluster(cluster: Any, *, region: str) -> MachineCluster:
    config = cluster.config
    return MachineCluster(
        name=cluster.cluster_name,
        uuid=cluster.cluster_uuid,
        project=cluster.project_id,
        region=region,
        image=".".join(config.software_config.image_version.split(".")[:2]),
        metadata=dict(config.gce_cluster_config.metadata),
        properties=dict(config.software_config.properties),
        init_actions=[
            (action.executable_file, action.execution_timeout.ToTimedelta().total_seconds())
            for action in config.initialization_actions
        ],
        staging_bucket=config.config_bucket,
    )
