"""Clusters on Google's Dataproc: what the eight verbs mean there.

The cluster's name is the plan's, its label `owner` the plan's nonce; a job's id follows from (cluster, job, attempt); a
deletion names the uuid of the cluster that was looked at. So each verb may be repeated by anybody, and what belongs to
somebody else is never touched. A name that was deleted can be created again by a call that comes late: absence must
hold for `settle_seconds`, and whatever all nets miss ends at its maximum age, which every cluster is created with.

What is asked for is made by `mayfly.gcp.cluster`, what is answered is read by `mayfly.gcp.states` and `.failures`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mayfly.backends.base import Capacity, ClusterView, JobView
from mayfly.backends.dataproc_calls import AlreadyExists, DataprocCalls, NotFound, Verb, WrongState
from mayfly.backends.dataproc_evidence import driver_output, init_tails, node_reports
from mayfly.contract import Failure, FrozenTarget, JobOrder, Plan
from mayfly.errors import BackendRefused, BackendUnavailable, NotOurs, Refused
from mayfly.gcp.cluster import autoscaling_policy, cluster, job, job_id
from mayfly.gcp.failures import cluster_failure, init_outputs
from mayfly.gcp.states import cluster_state, job_state, word
from mayfly.states import ClusterState, JobState

if TYPE_CHECKING:
    from google.cloud.dataproc_v1 import Cluster

_POLICY_TRIES = 3
"""How often a policy that somebody else has just removed is made anew."""
_SILENT = {"UNHEALTHY", "STALE_STATUS"}
"""Substates of a cluster whose master may be dead or cut off; healthy ones have none."""
_GOOGLES = "goog-"
"""Labels that Google adds by itself."""


class DataprocBackend:
    """See the module's docstring and `ClusterBackend`."""

    quiet_seconds = 20.0

    def __init__(self, target: FrozenTarget) -> None:
        self.target = target
        self.calls = DataprocCalls(target)
        self.gcp = self.calls.gcp
        self.settle_seconds = self.gcp.settle + self.gcp.call_deadline

    def capacity(self) -> Capacity | None:
        """Machines are made to measure."""
        return None

    # -- clusters

    def create(self, plan: Plan) -> ClusterView:
        """Idempotent by the name, and by a request id made of the nonce: ALREADY_EXISTS = look whose it is."""
        verb = self.calls.verb(f"create cluster {plan.name}", needed=False)
        request = self._region(
            request_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{plan.name}/{plan.owner}")),
            cluster=cluster(plan, now=time.time()),
        )
        made = False
        for left in reversed(range(_POLICY_TRIES)):
            self._ensure_policy(verb, plan)
            try:
                verb(self.calls.clusters.create_cluster, request)
                made = True
                break
            except AlreadyExists:
                break
            except BackendRefused as error:
                # Whoever deleted the last cluster with this policy has removed it between our two calls.
                if not left or not plan.nodes or not plan.nodes.autoscaling or "olic" not in str(error):
                    raise
        try:
            found = self._get(verb, plan.name)
        except (BackendRefused, BackendUnavailable) as error:
            if not made:  # there is one, and whose it is nobody can say: no call is known to have done nothing
                raise BackendUnavailable(f"whether cluster {plan.name} is ours is not known: {error}") from error
            found = None
        if found is None:
            return ClusterView(name=plan.name, state=ClusterState.CREATING, labels=plan.labels, detail="asked for")
        self._require_ours(found, owner=plan.owner)
        return view(found)

    def describe(self, name: str) -> ClusterView:
        found = self._get(self.calls.verb(f"look at cluster {name}"), name)
        return view(found) if found is not None else self._absent(name)

    def delete(self, name: str, *, owner: str) -> ClusterView:
        """Idempotent: not found = done. The uuid of what was seen goes along, so that no namesake made meanwhile is
        hit."""
        verb = self.calls.verb(f"delete cluster {name}")
        found = self._get(verb, name)
        if found is None:
            return self._absent(name)
        self._require_ours(found, owner=owner)
        seen = view(found)
        if seen.state is ClusterState.DELETING:
            return seen
        request = self._region(cluster_name=name, cluster_uuid=found.cluster_uuid)
        try:
            verb(self.calls.clusters.delete_cluster, request)
        except NotFound:
            again = self._get(verb, name)
            return self._absent(name) if again is None else view(again)
        except WrongState as error:  # something else is being done to it; the next poke asks again
            return ClusterView(name=name, state=seen.state, labels=seen.labels, detail=error.failure.evidence[0])
        return ClusterView(
            name=name, state=ClusterState.DELETING, labels=seen.labels, created_at=seen.created_at, detail="asked to go"
        )

    def explain(self, name: str) -> Failure | None:
        """From the cluster's own state, the output of init actions in its bucket and what its nodes wrote down."""
        found = self._get(self.calls.verb(f"look at cluster {name}"), name)
        if found is None:
            return None
        states = [found.status, *found.status_history]
        detail = next((status.detail for status in states if status.detail), "")
        ran = any(cluster_state(status.state) is ClusterState.RUNNING for status in states)
        return cluster_failure(
            name=name,
            state=word(found.status.state),
            detail=detail,
            ran=ran,
            outputs=init_tails(self.target, init_outputs(detail)),
            nodes=node_reports(self.target, name),
        )

    def find(self, labels: Mapping[str, str]) -> list[ClusterView]:
        """One listing, filtered by Google and once more here: what a filter may hold is only documented."""
        verb = self.calls.verb("list clusters")
        wanted = " AND ".join(f"labels.{key} = {value}" for key, value in sorted(labels.items()))
        pages = verb(self.calls.clusters.list_clusters, self._region(filter=wanted, page_size=500))
        views = [view(each) for each in verb.all(pages)]
        return [
            each
            for each in views
            if each.state is not ClusterState.ABSENT and labels.items() <= dict(each.labels).items()
        ]

    def tidy(self, plan: Plan) -> None:
        """The autoscaling policy goes with the last cluster that used it: while one does, Google refuses."""
        policy = autoscaling_policy(plan)
        if policy is None:
            return
        try:
            self.calls.verb("remove autoscaling policy")(
                self.calls.policies.delete_autoscaling_policy, {"name": self._policy_name(policy["id"])}
            )
        except (BackendRefused, BackendUnavailable):
            pass  # in use, gone already, or left for the next one: it costs nothing

    # -- jobs

    def submit(self, order: JobOrder, *, rundir: str) -> None:
        """Idempotent by the job's id, which Google takes once."""
        verb = self.calls.verb(f"submit job {job_id(order)}", needed=False)
        try:
            verb(self.calls.jobs.submit_job, self._region(job=job(order, rundir=rundir)))
        except AlreadyExists:
            return
        except (NotFound, WrongState) as error:
            raise Refused(
                f"cluster {order.cluster} is not running; job {order.job} was not started: {error.failure.evidence[0]}"
            ) from error

    def poll(self, order: JobOrder) -> JobView:
        """The job's state, and the cluster's below it: a driver does not outlive its cluster."""
        verb = self.calls.verb(f"look at job {job_id(order)}")
        try:
            found = verb(self.calls.jobs.get_job, self._region(job_id=job_id(order)))
        except NotFound:
            found = None
        below = self._get(verb, order.cluster)
        seen = view(below) if below is not None else self._absent(order.cluster)
        alive = below is not None and seen.state in (ClusterState.RUNNING, ClusterState.CREATING)
        lost = "" if alive else f"{seen.state}: {seen.detail}"
        if found is None:
            return JobView(state=JobState.NEVER_STARTED, detail="no such job", lost=lost)
        status = found.status
        state = job_state(status.state)
        words = " ".join(filter(None, [word(status.state), status.details]))
        if lost:
            return JobView(state=JobState.ENDED, detail=words, lost=lost)
        if state is JobState.ENDED:
            said = driver_output(self.target, found.driver_output_resource_uri)
            return JobView(state=state, detail="\n".join([words, *said]))
        both = [each.status for each in (found, below) if each is not None]
        if state is JobState.RUNNING and any(word(each.substate) in _SILENT for each in both):
            return JobView(state=JobState.SILENT, detail=f"Dataproc does not hear its master: {seen.detail}; {words}")
        return JobView(state=state, detail=words)

    def cancel(self, order: JobOrder) -> None:
        verb = self.calls.verb(f"cancel job {job_id(order)}")
        try:
            verb(self.calls.jobs.cancel_job, self._region(job_id=job_id(order)))
        except (NotFound, WrongState):
            pass  # never started, or ended already

    # -- within

    def _region(self, **more: Any) -> dict[str, Any]:
        return {"project_id": self.gcp.project, "region": self.gcp.region, **more}

    def _get(self, verb: Verb, name: str) -> Cluster | None:
        try:
            return verb(self.calls.clusters.get_cluster, self._region(cluster_name=name))
        except NotFound:
            return None

    def _absent(self, name: str) -> ClusterView:
        where = f"project {self.gcp.project}, region {self.gcp.region}"
        return ClusterView(name=name, state=ClusterState.ABSENT, detail=f"not found in {where}")

    def _require_ours(self, found: Cluster, *, owner: str) -> None:
        theirs = found.labels.get("owner", "")
        if theirs != owner:
            raise NotOurs(
                f"cluster {found.cluster_name} exists and belongs to another owner ({theirs or 'no label'}); left alone"
            )

    def _ensure_policy(self, verb: Verb, plan: Plan) -> None:
        """Its id is a hash of its content: whoever was first made the same."""
        policy = autoscaling_policy(plan)
        if policy is None:
            return
        parent = f"projects/{self.gcp.project}/regions/{self.gcp.region}"
        try:
            verb(self.calls.policies.create_autoscaling_policy, {"parent": parent, "policy": policy})
        except AlreadyExists:
            pass

    def _policy_name(self, policy: str) -> str:
        return f"projects/{self.gcp.project}/regions/{self.gcp.region}/autoscalingPolicies/{policy}"


def view(found: Cluster) -> ClusterView:
    """What Dataproc says of a cluster, in our words."""
    status, workers = found.status, found.config.worker_config
    there = len(workers.instance_names)
    missing = max(0, workers.num_instances - there)
    words = [word(status.state)]
    if word(status.substate) in _SILENT:
        words.append(word(status.substate))
    if missing:
        words.append(f"{there} of {workers.num_instances} primary workers are there")
    if status.detail:
        words.append(status.detail)
    begun = [each.state_start_time.timestamp() for each in (*found.status_history, status) if each.state_start_time]
    return ClusterView(
        name=found.cluster_name,
        state=cluster_state(status.state),
        labels={key: value for key, value in found.labels.items() if not key.startswith(_GOOGLES)},
        created_at=min(begun, default=None),
        detail=", ".join(words),
        missing=missing,
        gateway=next(iter(found.config.endpoint_config.http_ports.values()), ""),
    )
