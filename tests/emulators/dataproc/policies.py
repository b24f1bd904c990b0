"""AutoscalingPolicyService, and the long-running operations."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.cloud import dataproc_v1 as sdk
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from tests.emulators.dataproc import checks
from tests.emulators.dataproc.clusters import page
from tests.emulators.dataproc.errors import ApiError, not_found
from tests.emulators.dataproc.shapes import short
from tests.emulators.dataproc.world import Key, PolicyPb, World

ListPoliciesResponse = sdk.ListAutoscalingPoliciesResponse.pb()
_PARENT = re.compile(r"projects/([^/]+)/(?:regions|locations)/([^/]+)(?:/[A-Za-z]+(?:/([^/]+))?)?")


def key_of(name: str) -> Key:
    found = _PARENT.fullmatch(name)
    if not found:
        raise checks.bad(f"Invalid resource name '{name}'.")
    return found.group(1), found.group(2), found.group(3) or ""


class Policies:
    def __init__(self, world: World) -> None:
        self.world = world

    def verbs(self) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
        return {
            "CreateAutoscalingPolicy": (sdk.CreateAutoscalingPolicyRequest.pb(), self.create),
            "GetAutoscalingPolicy": (sdk.GetAutoscalingPolicyRequest.pb(), self.get),
            "ListAutoscalingPolicies": (sdk.ListAutoscalingPoliciesRequest.pb(), self.list),
            "UpdateAutoscalingPolicy": (sdk.UpdateAutoscalingPolicyRequest.pb(), self.update),
            "DeleteAutoscalingPolicy": (sdk.DeleteAutoscalingPolicyRequest.pb(), self.delete),
        }

    def create(self, request: Any) -> Any:
        project, region, _ = key_of(request.parent)
        checks.place(project, region)
        checks.policy(request.policy)
        key = (project, region, request.policy.id)
        with self.world.lock:
            if key in self.world.policies:
                name = "projects/{}/regions/{}/autoscalingPolicies/{}".format(*key)
                raise ApiError("ALREADY_EXISTS", f"Already exists: Autoscaling policy {name}")
            return self._put(key, request.policy)

    def get(self, request: Any) -> Any:
        with self.world.lock:
            return self._known(request.name)

    def list(self, request: Any) -> Any:
        place = key_of(request.parent)[:2]
        with self.world.lock:
            found = [policy for key, policy in sorted(self.world.policies.items()) if key[:2] == place]
            items, token = page(found, request.page_size, request.page_token)
            return ListPoliciesResponse(policies=items, next_page_token=token)

    def update(self, request: Any) -> Any:
        with self.world.lock:
            self._known(request.policy.name)
            key = key_of(request.policy.name)
            request.policy.id = key[2]
            checks.policy(request.policy)
            return self._put(key, request.policy)

    def delete(self, request: Any) -> Any:
        with self.world.lock:
            self._known(request.name)
            key = key_of(request.name)
            users = [
                entry.name
                for entry in self.world.clusters.values()
                if entry.key[:2] == key[:2] and short(entry.pb.config.autoscaling_config.policy_uri) == key[2]
            ]
            if users:
                raise ApiError(
                    "FAILED_PRECONDITION",
                    f"Cannot delete autoscaling policy '{request.name}': it is in use by clusters: {', '.join(users)}",
                )
            del self.world.policies[key]
            return empty_pb2.Empty()

    def _known(self, name: str) -> Any:
        policy = self.world.policies.get(key_of(name))
        if policy is None:
            raise not_found("Autoscaling policy", name)
        return policy

    def _put(self, key: Key, given: Any) -> Any:
        policy = PolicyPb()
        policy.CopyFrom(given)
        policy.name = "projects/{}/regions/{}/autoscalingPolicies/{}".format(*key)
        for name in ("worker_config", "secondary_worker_config"):
            group = getattr(policy, name)
            if policy.HasField(name) and not group.weight:
                group.weight = 1
        if policy.worker_config.min_instances == 0:
            policy.worker_config.min_instances = 2
        if not policy.basic_algorithm.HasField("cooldown_period"):
            policy.basic_algorithm.cooldown_period.seconds = 120
        self.world.policies[key] = policy
        return policy


class Operations:
    def __init__(self, world: World) -> None:
        self.world = world

    def verbs(self) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
        return {
            "GetOperation": (operations_pb2.GetOperationRequest, self.get),
            "ListOperations": (operations_pb2.ListOperationsRequest, self.list),
            "CancelOperation": (operations_pb2.CancelOperationRequest, self.cancel),
            "DeleteOperation": (operations_pb2.DeleteOperationRequest, self.cancel),
        }

    def get(self, request: Any) -> Any:
        key = key_of(request.name)
        self.world.quota("read", *key[:2])
        with self.world.lock:
            operation = self.world.operations.get(key)
            if operation is None:
                raise not_found("Operation", request.name)
            return operation.to_pb()

    def list(self, request: Any) -> Any:
        place = key_of(request.name)[:2]
        with self.world.lock:
            found = [op for key, op in reversed(list(self.world.operations.items())) if key[:2] == place]
            items, token = page(found, request.page_size, request.page_token)
            return operations_pb2.ListOperationsResponse(
                operations=[operation.to_pb() for operation in items], next_page_token=token
            )

    def cancel(self, request: Any) -> Any:
        """Google refuses both for operations of clusters."""
        self.get(request)
        raise ApiError("UNIMPLEMENTED", "Operation is not implemented, or supported, or enabled.")
