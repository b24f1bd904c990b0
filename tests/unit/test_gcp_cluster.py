"""What Dataproc is asked for: by the SDK's own types, within Dataproc's rules."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.cloud import dataproc_v1 as sdk
from hypothesis import given
from hypothesis import strategies as st

from mayfly.backends.dataproc import view
from mayfly.contract import Environment, FrozenTarget, Identity, JobOrder, Limits, Plan, Timestamp, YarnPlan
from mayfly.contract.nodes import NODE_PYTHON, GcpPlan, NfsShare
from mayfly.errors import PlanError
from mayfly.gcp.cluster import autoscaling_policy, cluster, job, job_id, policy_name
from mayfly.gcp.states import CLUSTER, JOB, job_state
from mayfly.plan import describe, make_plan
from mayfly.spec.job import ClusterSpec, JobSpec, WorkerSpec, WorkersRange
from mayfly.states import ClusterState, JobState

GB = 10**9
NOW = 1_795_255_200.0
GCP = GcpPlan(project="acme-data", region="europe-west3")
TARGET = FrozenTarget(
    name="gcp-prod", backend="dataproc", launcher="yarn", staging="gs://acme-mayfly/prod", gcp=GCP, yarn=YarnPlan()
)
ENVIRONMENT = Environment(path="envs/abc.tar.gz", sha256="ab" * 32, bytes=1, python="3.11.7")


def plan(target: FrozenTarget = TARGET, *, least: int = 4, most: int = 4, **changes: Any) -> Plan:
    spec = {
        "name": "trips",
        "folder": Path("/jobs/trips"),
        "script": "trips.py",
        "targets": (target.name,),
        "target": target.name,
        "cluster": ClusterSpec(workers=WorkersRange(minimum=least, maximum=most), worker=WorkerSpec(memory=4 * GB)),
    }
    given: dict[str, Any] = {
        "job": JobSpec.model_validate(spec | changes.pop("spec", {})),
        "target": target,
        "identity": Identity(installation="Here & Now", dag_id="Trips.täglich", run_id="manual__1", group="cluster"),
        "generation": 1,
        "capacity": None,
        "home": Path("/home/mayfly"),
        "code": "code/abc.zip",
        "now": NOW,
        "owner": "0123456789abcdef",
        "setup": "nodes/abc.sh",
        "carrier": "nodes/abc.py",
    }
    return make_plan(**given | changes)


def with_gcp(**changes: Any) -> FrozenTarget:
    return replace(TARGET, gcp=replace(GCP, **changes))


def properties(made: Plan) -> dict[str, str]:
    return dict(cluster(made, now=NOW)["config"]["software_config"]["properties"])


def test_every_state_of_google_has_one_of_ours() -> None:
    assert set(CLUSTER) == {state.name for state in sdk.ClusterStatus.State}
    assert set(JOB) == {state.name for state in sdk.JobStatus.State}


@pytest.mark.filterwarnings("ignore:Unrecognized State enum value")
def test_a_state_that_is_newer_than_the_client_keeps_nothing_from_its_end() -> None:
    seen = view(sdk.Cluster(cluster_name="mf-x", labels={"owner": "us"}, status={"state": 99}))
    assert (seen.state, seen.labels, seen.detail) == (ClusterState.CREATING, {"owner": "us"}, "99")
    assert job_state(sdk.JobStatus(state=99).state) is JobState.UNKNOWN


def test_the_whole_cluster_is_made_of_the_clients_own_fields() -> None:
    target = with_gcp(
        zone="europe-west3-b",
        subnet="dataproc",
        service_account="nodes@acme-data.iam.gserviceaccount.com",
        tags=("mayfly",),
        kms_key="projects/p/locations/europe-west3/keyRings/r/cryptoKeys/k",
        local_ssds=1,
        secondary="spot",
        shares=(NfsShare(mount="/shared/vol1", server="10.0.0.2", export="/vol1"),),
    )
    made = plan(target, least=60, most=60, environment=ENVIRONMENT)
    asked = sdk.Cluster(cluster(made, now=NOW))  # a field it does not know is a ValueError
    config, machines = asked.config, asked.config.gce_cluster_config
    assert (asked.cluster_name, dict(asked.labels)) == (made.name, dict(made.labels))
    assert (config.config_bucket, config.temp_bucket) == ("acme-mayfly", "acme-mayfly")
    assert (machines.zone_uri, machines.subnetwork_uri, list(machines.tags)) == (
        "europe-west3-b",
        "dataproc",
        ["mayfly"],
    )
    assert machines.internal_ip_only and machines.shielded_instance_config.enable_secure_boot
    assert list(machines.service_account_scopes) == ["https://www.googleapis.com/auth/cloud-platform"]
    assert config.encryption_config.gce_pd_kms_key_name.endswith("/cryptoKeys/k")
    assert config.endpoint_config.enable_http_port_access
    assert config.secondary_worker_config.preemptibility.name == "SPOT"
    assert config.secondary_worker_config.num_instances + config.worker_config.num_instances >= 3
    assert config.worker_config.disk_config.num_local_ssds >= 1 > config.master_config.disk_config.num_local_ssds
    assert config.master_config.preemptibility.name == "PREEMPTIBILITY_UNSPECIFIED"
    (action,) = config.initialization_actions
    assert action.executable_file == "gs://acme-mayfly/prod/nodes/abc.sh"
    assert dict(machines.metadata) == {
        "mayfly-staging": "gs://acme-mayfly/prod",
        "mayfly-cluster": made.name,
        "mayfly-environment": "envs/abc.tar.gz",
        "mayfly-environment-sha256": "ab" * 32,
        "mayfly-shares": json.dumps(
            [{"mount": "/shared/vol1", "export": "/vol1", "server": "10.0.0.2", "options": ""}]
        ),
    }
    assert properties(made)["dataproc:am.primary_only"] == "true"
    assert any("spot" in line for line in describe(made))


def test_an_image_of_ones_own_brings_its_version() -> None:
    ours = "projects/acme-data/global/images/family/nfs"
    made = plan(with_gcp(custom_image=ours, secondary="spot"), least=8, most=8)
    config = sdk.Cluster(cluster(made, now=NOW)).config
    assert config.software_config.image_version == ""
    groups = (config.master_config, config.worker_config, config.secondary_worker_config)
    assert [group.image_uri for group in groups] == [ours] * 3


def test_labels_keep_to_googles_rules_whatever_the_names_are() -> None:
    for key, value in cluster(plan(), now=NOW)["labels"].items():
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key), key
        assert re.fullmatch(r"[a-z0-9_-]{0,63}", value), value


def test_yarn_is_told_what_the_plan_has_counted_with() -> None:
    made = plan()
    assert made.nodes is not None and made.nodes.primary is not None
    node, given = made.nodes.primary, properties(made)
    for name in ("nodemanager.resource.memory-mb", "scheduler.maximum-allocation-mb"):
        assert given[f"yarn:yarn.{name}"] == str(node.yarn_mib)
    for name in ("nodemanager.resource.cpu-vcores", "scheduler.maximum-allocation-vcores"):
        assert given[f"yarn:yarn.{name}"] == str(node.yarn_cores)
    assert "dataproc:am.primary_only" not in given  # there is no node on which it must not be


@pytest.mark.parametrize(("life", "seconds"), [(60.0, 600), (5000.4, 5001), (14 * 86400.0, 14 * 86400)])
def test_a_cluster_always_has_a_maximum_age(life: float, seconds: int) -> None:
    made = plan(max_age=life)
    assert cluster(made, now=NOW)["config"]["lifecycle_config"]["auto_delete_ttl"] == {"seconds": seconds}
    later = cluster(made, now=NOW + 1e9)["config"]["lifecycle_config"]
    assert later == {"auto_delete_ttl": {"seconds": 600}, "idle_delete_ttl": {"seconds": 3600}}


def test_a_run_that_may_outlive_every_cluster_is_refused() -> None:
    with pytest.raises(PlanError, match=r"may take 18\.\d days .* no cluster live longer than 14"):
        plan(spec={"timeout": 6 * 86400.0}, attempts=3)


def test_one_machine() -> None:
    made = plan(replace(TARGET, launcher="processes", yarn=None), least=2, most=2)
    config = cluster(made, now=NOW)["config"]
    assert "worker_config" not in config and "secondary_worker_config" not in config
    assert config["master_config"]["num_instances"] == 1
    assert properties(made)["dataproc:dataproc.allow.zero.workers"] == "true"


def test_adaptive_clusters_share_a_policy_by_its_content() -> None:
    target = with_gcp(secondary="spot")
    first, second = plan(target, least=1, most=60), plan(target, least=1, most=60, owner="ffff", generation=2)
    policy = autoscaling_policy(first)
    assert policy is not None and policy == autoscaling_policy(second)
    assert policy != autoscaling_policy(plan(target, least=1, most=200))
    sdk.AutoscalingPolicy(policy)
    assert policy["worker_config"]["min_instances"] == policy["worker_config"]["max_instances"] == 2
    assert policy["secondary_worker_config"]["max_instances"] > policy["secondary_worker_config"]["min_instances"]
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]{1,48}[a-zA-Z0-9]", policy["id"])
    assert cluster(first, now=NOW)["config"]["autoscaling_config"]["policy_uri"] == policy_name(first)
    # Node labels, by which am.primary_only works, do not go with autoscaling: the launcher looks at the node's name.
    assert "dataproc:am.primary_only" not in properties(first)
    assert first.yarn is not None and re.search(first.yarn.master_not_on, f"{first.name}-sw-a1b2")
    assert not re.search(first.yarn.master_not_on, f"{first.name}-w-0")
    assert autoscaling_policy(plan()) is None


def order(**changes: Any) -> JobOrder:
    made = plan()
    given: dict[str, Any] = {
        "cluster": made.name,
        "owner": made.owner,
        "job": "run_job",
        "attempt": 1,
        "script": "trips.py",
        "workers": made.workers,
        "limits": Limits(start=1.0, job=1.0, stall=0.0),
        "code": "code/abc.zip",
        "carrier": "nodes/abc.py",
        "lease_ttl": 1.0,
        "expires_at": Timestamp(NOW),
        "at": Timestamp(NOW),
    }
    return JobOrder(**given | changes)


def test_a_job_starts_the_carrier_with_the_drivers_arguments() -> None:
    one = order(python=NODE_PYTHON)
    asked = job(one, rundir=f"gs://acme-mayfly/prod/runs/{one.cluster}")
    made = sdk.Job(asked)
    assert made.pyspark_job.main_python_file_uri == "gs://acme-mayfly/prod/nodes/abc.py"
    assert list(made.pyspark_job.args) == [
        "--python", NODE_PYTHON, f"gs://acme-mayfly/prod/runs/{one.cluster}", "run_job", "1", "code/abc.zip",
    ]  # fmt: skip
    assert made.reference.job_id == f"{one.cluster}-run_job-1"


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300), st.integers(1, 10**6))
def test_job_ids_keep_to_the_rules_and_apart(name: str, other: str, attempt: int) -> None:
    first, second = job_id(order(job=name, attempt=attempt)), job_id(order(job=other, attempt=attempt))
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,100}", first)
    assert (first == second) == (name == other)
