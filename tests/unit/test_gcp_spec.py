"""The key `gcp` of a target: what is taken, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mayfly.contract.nodes import GcpPlan, NfsShare
from mayfly.spec.fields import FROM_FILE
from mayfly.spec.target import TargetSpec

GIVEN = {"project": "acme-data", "region": "europe-west3"}


def target(gcp: dict[str, Any] | None, **keys: Any) -> TargetSpec:
    data = {"name": "gcp", "backend": "dataproc", "launcher": "yarn", "staging": "gs://acme-mayfly/prod", **keys}
    if gcp is not None:
        data["gcp"] = gcp
    return TargetSpec.model_validate(data, context=FROM_FILE)


def test_project_and_region_are_enough() -> None:
    frozen = target(GIVEN).freeze(Path("/home"))
    assert frozen.gcp == GcpPlan(project="acme-data", region="europe-west3")
    assert frozen.staging == "gs://acme-mayfly/prod" and frozen.timing.lease_ttl == 3600.0


def test_everything_arrives() -> None:
    given = {
        **GIVEN,
        "zone": "europe-west3-b",
        "image": "2.3.24-debian12",
        "subnet": "projects/net/regions/europe-west3/subnetworks/a",
        "service_account": "nodes@acme-data.iam.gserviceaccount.com",
        "impersonate": ["a@x.iam.gserviceaccount.com", "b@x.iam.gserviceaccount.com"],
        "tags": ["mayfly"],
        "families": ["n2d", "n2"],
        "disk": "200 GB",
        "local_ssds": 2,
        "secondary": "spot",
        "primary": 3,
        "idle_ttl": "30m",
        "shares": [{"mount": "/shared/vol1", "server": "10.0.0.2", "export": "/vol1", "options": "ro"}],
        "settle": "2m",
    }
    gcp = target(given).freeze(Path("/home")).gcp
    assert gcp is not None
    assert (gcp.families, gcp.disk_gb, gcp.idle_ttl, gcp.settle) == (("n2d", "n2"), 200, 1800.0, 120.0)
    assert gcp.shares == (NfsShare(mount="/shared/vol1", server="10.0.0.2", export="/vol1", options="ro"),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"project": "Acme Data"}, "project id"),
        ({"region": "Frankfurt"}, 'no region; write one as in "europe-west3"'),
        ({"zone": "us-central1-a"}, "zone 'us-central1-a' is not in region 'europe-west3'"),
        ({"image": "1.5"}, "allowed: 2.2, 2.3, 3.0"),
        ({"custom_image": "ours"}, 'write "projects/PROJECT/global/images/NAME"'),
        ({"custom_image": "projects/p/global/images/ours", "image": "2.2"}, "keep one of the two keys"),
        ({"disk_type": "hyperdisk-balanced"}, "family 'n2' have no boot disks of type 'hyperdisk-balanced'"),
        ({"families": ["n2", "c3"], "disk_type": "pd-standard"}, "but pd-balanced, pd-ssd, hyperdisk-balanced"),
        ({"families": ["n9"]}, "known: n2, n2d, n1, e2, c2, c2d, c3"),
        ({"families": []}, "at least 1"),
        ({"families": ["n2", "n2"]}, "n2 stands there twice"),
        ({"service_account": "somebody"}, "no service account; write its address"),
        ({"tags": ["Mayfly!"]}, "no network tag"),
        ({"secondary": "cheap"}, "'spot', 'preemptible' or 'on-demand'"),
        ({"primary": 1}, "greater than or equal to 2"),
        ({"disk": "10 GB"}, "from 30 GB"),
        ({"idle_ttl": "1m"}, "from 5m to 14d"),
        ({"idle_ttl": 3600}, "has no unit"),
        ({"kms_key": "my-key"}, "keyRings/RING/cryptoKeys/KEY"),
        ({"endpoint": "https://x/y"}, 'write "host:port"'),
        ({"shares": [{"mount": "/data", "export": "/x"}]}, "below /shared"),
        ({"shares": [{"mount": "/shared/../etc", "export": "/x"}]}, "`..`"),
        ({"shares": [{"mount": "/shared/a", "export": "/x; rm -r /"}]}, "path of an export"),
        ({"shares": [{"mount": "/shared/a", "export": "/x"}] * 2}, "/shared/a stands there twice"),
        ({"projet": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        target({**GIVEN, **change})
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("gcp", "keys", "words"),
    [
        (None, {}, "at least `gcp: {project"),
        (GIVEN, {"backend": "local", "launcher": "processes", "staging": "x"}, "is not on Google Cloud"),
        (GIVEN, {"staging": ".mayfly/staging"}, "write a gs:// URL"),
        (GIVEN, {"staging": "s3://bucket/x"}, "write a gs:// URL"),
        (GIVEN, {"options": {"state_dir": "x"}}, "no such option; allowed: none"),
        (GIVEN, {"python": ".venv/bin/python"}, "is no path on a node"),
    ],
)
def test_gcp_stands_where_dataproc_is_and_nowhere_else(
    gcp: dict[str, Any] | None, keys: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        target(gcp, **keys)
    assert words in str(refused.value)
