"""All verbs in one table, with what every call goes through: faults by rule, counting, the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.emulators.dataproc.clusters import Clusters
from tests.emulators.dataproc.errors import ApiError, Cut, Hang
from tests.emulators.dataproc.jobs import Jobs
from tests.emulators.dataproc.policies import Operations, Policies, key_of
from tests.emulators.dataproc.world import World

SERVICES = {
    "google.cloud.dataproc.v1.ClusterController": Clusters,
    "google.cloud.dataproc.v1.JobController": Jobs,
    "google.cloud.dataproc.v1.AutoscalingPolicyService": Policies,
    "google.longrunning.Operations": Operations,
}
_PERMISSIONS = {"Cluster": "clusters", "Job": "jobs", "Autoscaling": "autoscalingPolicies", "Op": "operations"}


class Service:
    def __init__(self, world: World) -> None:
        self.world = world
        self.by_service = {name: kind(world).verbs() for name, kind in SERVICES.items()}  # type: ignore[abstract]
        self.verbs: dict[str, tuple[Any, Callable[[Any], Any]]] = {
            verb: found for verbs in self.by_service.values() for verb, found in verbs.items()
        }

    def call(self, verb: str, request: Any) -> Any:
        """The answer; ApiError, Cut or Hang otherwise. Whatever happens is counted."""
        cluster, code = self.cluster_of(verb, request), "OK"
        names = {
            "permission": self._permission(verb),
            "resource": self._resource(request, cluster),
            "project": getattr(request, "project_id", "") or self._project(request),
        }
        strike = self.world.faults.strike
        began = time.time()
        try:
            time.sleep(strike(verb, cluster, "before", **names))
            answer = self.verbs[verb][1](request)  # refused: a rule for "after" waits for one that takes effect
            time.sleep(strike(verb, cluster, "after", **names))
            return answer
        except ApiError as error:
            code = error.code
            raise
        except (Cut, Hang) as error:
            code = type(error).__name__.upper()
            raise
        except Exception as crash:
            code = "INTERNAL"
            raise ApiError("INTERNAL", f"Internal error encountered: {type(crash).__name__}: {crash}") from crash
        finally:
            with self.world.lock:
                self.world.calls[verb, code] += 1
                seconds = round(time.time() - began, 4)
                self.world.log.append(
                    {"time": began, "verb": verb, "cluster": cluster, "code": code, "seconds": seconds}
                )

    def cluster_of(self, verb: str, request: Any) -> str:
        """The name of the cluster that a call is about, "" where it is about none."""
        if verb == "CreateCluster":
            return str(request.cluster.cluster_name)
        if verb.startswith("SubmitJob"):
            return str(request.job.placement.cluster_name)
        if verb in ("GetJob", "CancelJob", "DeleteJob", "UpdateJob"):
            entry = self.world.jobs.get((request.project_id, request.region, request.job_id))
            return entry.cluster.name if entry else ""
        if verb == "GetOperation":
            try:
                operation = self.world.operations.get(key_of(request.name))
            except ApiError:
                return ""
            return str(operation.meta.cluster_name) if operation else ""
        return str(getattr(request, "cluster_name", ""))

    @staticmethod
    def _permission(verb: str) -> str:
        for part, resource in _PERMISSIONS.items():
            action, found, _ = verb.partition(part)
            if found:
                return f"dataproc.{resource}.{'create' if action == 'Submit' else action.lower()}"
        return "dataproc.unknown"

    @staticmethod
    def _project(request: Any) -> str:
        """Of requests that name things by their whole path."""
        policy = getattr(getattr(request, "policy", None), "name", "")
        path = f"{getattr(request, 'parent', '') or getattr(request, 'name', '') or policy}//".split("/")
        return path[1] if path[0] == "projects" else ""

    @staticmethod
    def _resource(request: Any, cluster: str) -> str:
        project, region = getattr(request, "project_id", ""), getattr(request, "region", "")
        path = f"projects/{project}/regions/{region}" if project else getattr(request, "name", "")
        return f"//dataproc.googleapis.com/{path}" + (f"/clusters/{cluster}" if cluster and project else "")
