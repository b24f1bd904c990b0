"""ClusterController: the verbs, each from request to response."""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from google.cloud import dataproc_v1 as sdk

from tests.emulators.dataproc import checks, filters, lives, shapes
from tests.emulators.dataproc.errors import ApiError
from tests.emulators.dataproc.world import ClusterEntry, ClusterPb, Operation, State, World

_GROUPS = {
    "ACTIVE": {"CREATING", "RUNNING", "UPDATING"},
    "INACTIVE": {"DELETING", "ERROR", "STOPPING", "STOPPED"},
}
ListClustersResponse = sdk.ListClustersResponse.pb()


def page(items: Sequence[Any], size: int, token: str, limit: int = 1000) -> tuple[Sequence[Any], str]:
    """One page, and the token of the next or ""."""
    try:
        start = int(base64.urlsafe_b64decode(token)) if token else 0
    except ValueError:
        raise checks.bad(f"Invalid page token '{token}'.") from None
    if size < 0:
        raise checks.bad("page_size must not be negative.")
    end = start + min(size or limit, limit)
    return items[start:end], base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(items) else ""


class Clusters:
    def __init__(self, world: World) -> None:
        self.world = world

    def verbs(self) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
        """Verb -> (request class, handler)."""
        return {
            "CreateCluster": (sdk.CreateClusterRequest.pb(), self.create),
            "GetCluster": (sdk.GetClusterRequest.pb(), self.get),
            "ListClusters": (sdk.ListClustersRequest.pb(), self.list),
            "UpdateCluster": (sdk.UpdateClusterRequest.pb(), self.update),
            "DeleteCluster": (sdk.DeleteClusterRequest.pb(), self.delete),
            "DiagnoseCluster": (sdk.DiagnoseClusterRequest.pb(), self.diagnose),
            "StopCluster": (sdk.StopClusterRequest.pb(), self.stop),
            "StartCluster": (sdk.StartClusterRequest.pb(), self.start),
        }

    # -- verbs

    def create(self, request: Any) -> Any:
        world, project, region = self.world, request.project_id, request.region
        checks.place(project, region)
        checks.request_id(request.request_id)
        world.quota("cluster", project, region)
        if world.settings.projects and project not in world.settings.projects:
            raise ApiError("PERMISSION_DENIED", f"Project '{project}' not found or permission denied.")
        with world.lock:
            return world.once(
                "CreateCluster", project, region, request.request_id, lambda: self._create(request)
            ).to_pb()

    def _create(self, request: Any) -> Operation:
        world, key = self.world, (request.project_id, request.region, request.cluster.cluster_name)
        checks.cluster(request.cluster, region=request.region)
        if key in world.clusters:
            path = "projects/{}/regions/{}/clusters/{}".format(*key)
            raise ApiError("ALREADY_EXISTS", f"Already exists: Failed to create cluster: Cluster {path}")
        pb = ClusterPb()
        pb.CopyFrom(request.cluster)
        pb.project_id = request.project_id
        for output in ("status", "status_history", "metrics"):
            pb.ClearField(output)
        pb.cluster_uuid = str(uuid.uuid4())
        self._policy_exists(pb, request.region)
        shapes.fill(pb, region=request.region)
        self._cpus(pb, request.region)
        entry = ClusterEntry(key=key, pb=pb, spec=shapes.machine_cluster(pb, region=request.region))
        lives.set_lifecycle(world, entry)
        world.set_state(entry, State.CREATING)
        world.clusters[key] = entry
        world.history.append(entry)
        operation = world.operation(entry, "CREATE", f"Create cluster with {len(shapes.nodes_of(pb))} nodes")
        threading.Thread(target=lives.boot, args=(world, entry, operation), daemon=True).start()
        return operation

    def get(self, request: Any) -> Any:
        self.world.quota("read", request.project_id, request.region)
        with self.world.lock:
            return _copy(self.world.cluster((request.project_id, request.region, request.cluster_name)).pb)

    def list(self, request: Any) -> Any:
        world = self.world
        checks.place(request.project_id, request.region)
        world.quota("read", request.project_id, request.region)
        terms = filters.parse(request.filter, {"status.state", "clusterName", "clusterUuid"})
        with world.lock:
            found = [
                entry.pb
                for entry in reversed(list(world.clusters.values()))
                if entry.key[:2] == (request.project_id, request.region)
                and lives.listed(world, entry)
                and filters.matches(terms, lambda field, pb=entry.pb: _field(pb, field), _GROUPS)
            ]
            items, token = page(found, request.page_size, request.page_token)
            return ListClustersResponse(clusters=items, next_page_token=token)

    def delete(self, request: Any) -> Any:
        world, project, region = self.world, request.project_id, request.region
        checks.request_id(request.request_id)
        world.quota("cluster", project, region)
        with world.lock:

            def ask() -> Operation:
                entry = world.cluster((project, region, request.cluster_name))
                self._same(entry, request.cluster_uuid)
                if entry.state == State.DELETING:
                    raise ApiError(
                        "FAILED_PRECONDITION",
                        f"Cannot delete cluster '{entry.name}' while it has other pending delete operations.",
                    )
                return lives.begin_delete(world, entry, "delete")

            return world.once("DeleteCluster", project, region, request.request_id, ask).to_pb()

    def update(self, request: Any) -> Any:
        world, project, region = self.world, request.project_id, request.region
        checks.request_id(request.request_id)
        world.quota("cluster", project, region)
        with world.lock:
            return world.once(
                "UpdateCluster", project, region, request.request_id, lambda: self._update(request)
            ).to_pb()

    def _update(self, request: Any) -> Operation:
        world = self.world
        entry = world.cluster((request.project_id, request.region, request.cluster_name))
        self._running(entry, "updated")
        changed = ClusterPb()
        changed.CopyFrom(entry.pb)
        given = request.cluster
        known = {
            "labels": lambda: _replace_labels(changed, given),
            "config.worker_config.num_instances": lambda: _number(changed, given, "worker_config"),
            "config.secondary_worker_config.num_instances": lambda: _number(changed, given, "secondary_worker_config"),
            "config.autoscaling_config.policy_uri": lambda: _take(changed, given, "autoscaling_config"),
            "config.lifecycle_config.idle_delete_ttl": lambda: _take(changed, given, "lifecycle_config"),
            "config.lifecycle_config.auto_delete_ttl": lambda: _take(changed, given, "lifecycle_config"),
        }
        if not request.update_mask.paths:
            raise checks.bad("update_mask is required.")
        for path in request.update_mask.paths:
            if path not in known:
                raise checks.bad(f"Invalid update_mask path '{path}'; allowed: {', '.join(known)}.")
            known[path]()
        if changed.config.worker_config.num_instances < 2 and not shapes.single_node(changed.config):
            raise checks.bad("Clusters need at least 2 primary workers.")
        if shapes.single_node(changed.config) != shapes.single_node(entry.pb.config):
            raise checks.bad("Single node clusters cannot be scaled.")
        self._policy_exists(changed, request.region)
        checks.lifecycle(changed.config.lifecycle_config)
        graceful = checks.seconds(request.graceful_decommission_timeout)
        operation = world.operation(entry, "UPDATE", "Update cluster")
        lives.begin_update(world, entry, changed, graceful, operation)
        return operation

    def diagnose(self, request: Any) -> Any:
        world = self.world
        world.quota("cluster", request.project_id, request.region)
        with world.lock:
            entry = world.cluster((request.project_id, request.region, request.cluster_name))
            if entry.state == State.DELETING:
                raise ApiError("FAILED_PRECONDITION", f"Cluster '{entry.name}' is being deleted.")
            operation = world.operation(entry, "DIAGNOSE", "Diagnose cluster")
        folder = request.tarball_gcs_dir or entry.spec.metainfo
        threading.Thread(target=lives.diagnose, args=(world, entry, operation, folder), daemon=True).start()
        return operation.to_pb()

    def stop(self, request: Any) -> Any:
        return self._switch(request, State.RUNNING, State.STOPPING, State.STOPPED, "STOP")

    def start(self, request: Any) -> Any:
        return self._switch(request, State.STOPPED, State.STARTING, State.RUNNING, "START")

    # -- parts

    def _switch(self, request: Any, wanted: int, meanwhile: int, after: int, kind: str) -> Any:
        """Stop and start in name only: machines are not touched."""
        world = self.world
        world.quota("cluster", request.project_id, request.region)
        with world.lock:
            entry = world.cluster((request.project_id, request.region, request.cluster_name))
            self._same(entry, request.cluster_uuid)
            if entry.state != wanted:
                raise ApiError("FAILED_PRECONDITION", f"Cluster '{entry.name}' is in state {_state(entry.pb)}.")
            world.set_state(entry, meanwhile)
            operation = world.operation(entry, kind, f"{kind.capitalize()} cluster")
        threading.Thread(target=lives.switch, args=(world, entry, operation, after), daemon=True).start()
        return operation.to_pb()

    @staticmethod
    def _same(entry: ClusterEntry, cluster_uuid: str) -> None:
        if cluster_uuid and cluster_uuid != entry.pb.cluster_uuid:
            raise ApiError(
                "NOT_FOUND",
                "Not found: Cluster projects/{}/regions/{}/clusters/{}".format(*entry.key)
                + f" with UUID {cluster_uuid}",
            )

    @staticmethod
    def _running(entry: ClusterEntry, what: str) -> None:
        if entry.state != State.RUNNING:
            raise ApiError(
                "FAILED_PRECONDITION", f"Cluster '{entry.name}' is in state {_state(entry.pb)} and cannot be {what}."
            )

    def _policy_exists(self, pb: Any, region: str) -> None:
        uri = pb.config.autoscaling_config.policy_uri
        if uri and (pb.project_id, region, shapes.short(uri)) not in self.world.policies:
            raise ApiError("NOT_FOUND", f"Not found: Autoscaling policy {uri}")

    def _cpus(self, pb: Any, region: str) -> None:
        limit = self.world.settings.cpus
        if not limit:
            return
        used = sum(
            node.cores
            for entry in self.world.clusters.values()
            if entry.key[:2] == (pb.project_id, region)
            for node in shapes.nodes_of(entry.pb)
        )
        wanted = sum(node.cores for node in shapes.nodes_of(pb))
        if wanted + used > limit:
            raise checks.bad(lives.quota_message(wanted, limit - used))


def _state(pb: Any) -> str:
    return str(State(pb.status.state).name)


def _field(pb: Any, field: str) -> str | None:
    if field == "status.state":
        return _state(pb)
    if field in ("clusterName", "clusterUuid"):
        return str(pb.cluster_name if field == "clusterName" else pb.cluster_uuid)
    return pb.labels.get(field.removeprefix("labels."))


def _copy(pb: Any) -> Any:
    other = type(pb)()
    other.CopyFrom(pb)
    return other


def _replace_labels(changed: Any, given: Any) -> None:
    checks.labels(given.labels)
    kept = {key: value for key, value in changed.labels.items() if key.startswith("goog-")}
    changed.ClearField("labels")
    changed.labels.update({**given.labels, **kept})


def _number(changed: Any, given: Any, group: str) -> None:
    number = getattr(given.config, group).num_instances
    if number < 0:
        raise checks.bad(f"{group}.num_instances must not be negative.")
    ours = getattr(changed.config, group)
    if not ours.machine_type_uri:
        ours.machine_type_uri = changed.config.worker_config.machine_type_uri
        ours.is_preemptible = group == "secondary_worker_config"
    ours.num_instances = number


def _take(changed: Any, given: Any, part: str) -> None:
    getattr(changed.config, part).CopyFrom(getattr(given.config, part))
