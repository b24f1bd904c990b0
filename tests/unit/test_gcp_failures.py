"""What Dataproc says of failures: class, evidence and whom to ask."""

from __future__ import annotations

import pytest

from mayfly.contract import FailureClass
from mayfly.contract.nodes import NodeReport
from mayfly.gcp.failures import cluster_failure, init_outputs, refusal

OUTPUT = "gs://acme/google-cloud-dataproc-metainfo/uuid-1/mf-x-w-1/dataproc-initialization-script-0_output"
FAILED = (
    "Multiple Errors:\n - Initialization action failed. Failed action 'gs://acme/prod/nodes/abc.sh', see output in: "
    f"{OUTPUT}.\n - Initialization action timed out. Failed action 'gs://acme/prod/nodes/abc.sh', see output in: "
    f"{OUTPUT.replace('w-1', 'm')}"
)


def test_the_output_of_init_actions_is_found_in_what_dataproc_says() -> None:
    first, second = init_outputs(FAILED)
    assert (first.node, first.uri, first.timed_out) == ("mf-x-w-1", OUTPUT, False)
    assert (second.node, second.timed_out) == ("mf-x-m", True)
    assert init_outputs("Timed out waiting for instance") == ()


def test_a_failed_init_action_tells_node_and_output() -> None:
    first, second = init_outputs(FAILED)
    lines = tuple(f"line {number}" for number in range(100))
    failure = cluster_failure(
        name="mf-x",
        state="ERROR",
        detail=FAILED,
        ran=False,
        outputs=[(first, lines), (second, ())],
        nodes=[
            NodeReport(node="mf-x-w-1", ok=False, seconds=3.2, reason="sha256 of envs/abc.tar.gz is wrong"),
            NodeReport(node="mf-x-w-0", ok=True),
        ],
    )
    text = failure.summary()
    assert failure.cls is FailureClass.INIT_ACTION and not failure.retryable
    assert "node mf-x-w-1 could not be set up (3.2 s): sha256 of envs/abc.tar.gz is wrong" in text
    assert "line 60" in text and "line 59" not in text and "line 99" in text  # forty of them
    assert "ran into its time limit on mf-x-m" in text and "mf-x-w-0" not in text


@pytest.mark.parametrize(
    ("said", "cls"),
    [
        ("Insufficient 'N2_CPUS' quota. Requested 72.0, available 24.0.", FailureClass.QUOTA),
        ("Quota 'CPUS' exceeded. Limit: 24.0 in region europe-west3.", FailureClass.QUOTA),
        (
            "The zone 'projects/p/zones/europe-west3-b' does not have enough resources available",
            FailureClass.STOCKOUT,
        ),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", FailureClass.STOCKOUT),
        (
            "Required 'compute.subnetworks.use' permission for 'projects/p/regions/r/subnetworks/s'",
            FailureClass.PERMISSION,
        ),
        ("Operation timed out: Only 0 out of 2 minimum required datanodes running.", FailureClass.NETWORK),
        ("Timed out waiting for instance mf-x-w-0 to report in.", FailureClass.NETWORK),
        ("Something that nobody has seen before", FailureClass.START_FAILED),
    ],
)
def test_classes_of_clusters_that_never_came_up(said: str, cls: FailureClass) -> None:
    failure = cluster_failure(name="mf-x", state="ERROR", detail=said, ran=False)
    assert failure.cls is cls
    assert f"Dataproc: {said}" in failure.evidence and failure.advice


def test_a_cluster_that_ran_is_lost_or_was_taken() -> None:
    lost = cluster_failure(name="mf-x", state="ERROR", detail="Timed out waiting for instance", ran=True)
    taken = cluster_failure(name="mf-x", state="ERROR", detail="Instance mf-x-m was preempted.", ran=True)
    assert (lost.cls, taken.cls) == (FailureClass.CLUSTER_LOST, FailureClass.PREEMPTED)


def test_a_missing_permission_is_named_with_the_account() -> None:
    failure = refusal(
        code="PERMISSION_DENIED",
        message="Permission 'dataproc.clusters.create' denied on resource '//dataproc.googleapis.com/projects/p'.",
        verb="create cluster mf-x",
        account="connection 'gcp', acting as robot@acme-data.iam.gserviceaccount.com",
    )
    assert (failure.cls, failure.retryable) == (FailureClass.PERMISSION, False)
    assert "robot@acme-data.iam.gserviceaccount.com lacks the permission dataproc.clusters.create" in failure.advice


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("Selected software image version '9.9' is invalid or not supported.", "gcp.image"),
        ("Invalid machine type 'n9-standard-4'.", "gcp.families"),
        ("Region 'europe-west99' is invalid or not supported.", "gcp.region"),
    ],
)
def test_a_refusal_says_which_key_to_look_at(said: str, key: str) -> None:
    failure = refusal(code="INVALID_ARGUMENT", message=said, verb="create", account="x")
    assert key in failure.advice and "Nothing was created" in failure.advice
