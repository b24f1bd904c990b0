"""Google's own clients on the emulator, for tests: gRPC (the SDK's default) and REST. Without retries of their own: a
test sees what the emulator said."""

from __future__ import annotations

from typing import Any

import grpc
from google.api_core import operations_v1
from google.auth.credentials import AnonymousCredentials
from google.cloud import dataproc_v1 as dataproc

from tests.emulators.dataproc.client import Emulator

PROJECT, REGION = "project-1", "europe-west1"
WHERE = {"project_id": PROJECT, "region": REGION}
PARENT = f"projects/{PROJECT}/regions/{REGION}"
SECONDS = 120.0
"""For whatever should be answered at once, on a machine with much else to do."""


class Google:
    """Clients and a few shorthands; `rest` = over REST instead of gRPC."""

    def __init__(self, emulator: Emulator, *, rest: bool = False) -> None:
        kinds = (
            dataproc.ClusterControllerClient,
            dataproc.JobControllerClient,
            dataproc.AutoscalingPolicyServiceClient,
        )
        if rest:
            how: dict[str, Any] = {
                "host": emulator.rest,
                "url_scheme": "http",
                "credentials": AnonymousCredentials(),
            }
            self._channel = None
        else:
            self._channel = grpc.insecure_channel(emulator.host)
            how = {"channel": self._channel}
        transport = "rest" if rest else "grpc"
        made = [kind(transport=kind.get_transport_class(transport)(**how)) for kind in kinds]  # type: ignore[attr-defined]
        self.clusters, self.jobs, self.policies = made
        self.operations: operations_v1.AbstractOperationsClient = self.clusters.transport.operations_client

    def close(self) -> None:
        for client in (self.clusters, self.jobs, self.policies):
            client.transport.close()

    # -- the verbs as tests say them

    def create(
        self, name: str = "c", *, wait: bool = True, request_id: str = "", timeout: float = SECONDS, **cluster: Any
    ) -> Any:
        request = {**WHERE, "cluster": {"project_id": PROJECT, "cluster_name": name, **cluster}}
        request["request_id"] = request_id
        operation = self.clusters.create_cluster(request=request, retry=None, timeout=timeout)
        return operation.result(timeout=SECONDS) if wait else operation

    def get(self, name: str = "c") -> Any:
        return self.clusters.get_cluster(request={**WHERE, "cluster_name": name}, retry=None, timeout=SECONDS)

    def state(self, name: str = "c") -> str:
        return str(self.get(name).status.state.name)

    def list(self, filter: str = "", page_size: int = 0) -> list[str]:
        request = {**WHERE, "filter": filter, "page_size": page_size}
        return [each.cluster_name for each in self.clusters.list_clusters(request=request, retry=None, timeout=SECONDS)]

    def delete(self, name: str = "c", *, wait: bool = True, uuid: str = "", request_id: str = "") -> Any:
        request = {**WHERE, "cluster_name": name, "cluster_uuid": uuid, "request_id": request_id}
        operation = self.clusters.delete_cluster(request=request, retry=None, timeout=SECONDS)
        return operation.result(timeout=SECONDS) if wait else operation

    def update(self, cluster: dict[str, Any], *paths: str, name: str = "c", wait: bool = True) -> Any:
        request = {**WHERE, "cluster_name": name, "cluster": cluster, "update_mask": {"paths": list(paths)}}
        operation = self.clusters.update_cluster(request=request, retry=None, timeout=SECONDS)
        return operation.result(timeout=SECONDS) if wait else operation

    def submit(self, main: str, *args: str, job_id: str = "j", cluster: str = "c", request_id: str = "") -> Any:
        job = {
            "reference": {"job_id": job_id},
            "placement": {"cluster_name": cluster},
            "pyspark_job": {"main_python_file_uri": main, "args": list(args)},
        }
        request = {**WHERE, "job": job, "request_id": request_id}
        return self.jobs.submit_job(request=request, retry=None, timeout=SECONDS)

    def job(self, job_id: str = "j") -> Any:
        return self.jobs.get_job(request={**WHERE, "job_id": job_id}, retry=None, timeout=SECONDS)

    def cancel(self, job_id: str = "j") -> Any:
        return self.jobs.cancel_job(request={**WHERE, "job_id": job_id}, retry=None, timeout=SECONDS)
