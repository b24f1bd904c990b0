"""Data of other stores on real nodes: S3, a share and the cluster's own HDFS, by one job on one cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from mayfly.contract import Outcome
from scripts.cloud.s3_server import S3Server
from tests.cloud.conftest import Cloud
from tests.cloud.test_runs import NOBODY
from tests.emulators.dataproc.nodes.hadoop import HADOOP_GROUP

STORES = """
import sys
import dask.dataframe as dd
import fsspec
from dask.distributed import Client

first, second, between, result = sys.argv[1:]
with Client():
    months = [dd.read_csv(month, blocksize="2 MB", usecols=["carrier", "distance"]) for month in (first, second)]
    dd.concat(months).to_parquet(between)
    found = fsspec.url_to_fs(between)[0]
    print(len(found.glob(f"{between}/*.parquet")), "parts on HDFS by", type(found).__module__)
    dd.read_parquet(between).groupby("carrier").distance.sum().to_frame().to_parquet(result)
"""
MORE = """
inputs: {first: "s3://lake/flights/*.csv", second: "/shared/lake/flights/*.csv"}
outputs: {between: "hdfs:///user/mayfly/flights", result: "s3://lake/result"}
env: {AWS_CONFIG_FILE: /shared/lake/keys/aws.config}
args: ["{{ inputs.first }}", "{{ inputs.second }}", "{{ outputs.between }}", "{{ outputs.result }}"]
"""
pytestmark = pytest.mark.timeout(2400)


def test_what_nothing_in_the_environment_opens_is_said_before_there_is_a_cluster(cloud: Cloud) -> None:
    cloud.add_job("blobs", STORES, target="plain", workers=2, more='inputs: {a: "abfs://lake/a.csv"}')
    assert "add adlfs to jobs/requirements.txt, then: mayfly env build blobs" in cloud.start("run", "blobs").end(2)


def test_s3_a_share_and_hdfs_are_read_and_written(cloud: Cloud, s3: S3Server, flights_data: Path) -> None:
    bucket = s3.buckets / "lake"
    (bucket / "flights").mkdir(parents=True)
    months = sorted(flights_data.glob("flights-2013-0[12].csv"))
    (cloud.lake / "flights").mkdir()
    for path, folder in zip(months, (bucket / "flights", cloud.lake / "flights"), strict=True):
        (folder / path.name).write_bytes(path.read_bytes())
    # As docs/jobs.md says of keys: in a file on a share, open to the script's user and to the workers' group.
    keys = cloud.lake / "keys" / "aws.config"
    keys.parent.mkdir()
    keys.write_text(s3.client_config())
    os.chown(keys, NOBODY, HADOOP_GROUP)
    keys.chmod(0o440)
    cloud.add_job("stores", STORES, target="lake", workers=2, more=MORE)
    run = cloud.start("run", "stores")
    text = run.end(0)
    assert "parts on HDFS by hdfs_native.fsspec" in text
    assert s3.secret not in text
    record = run.record()
    assert record.outcome is Outcome.SUCCESS and record.peaks.workers == 2
    assert run.receipt().rule.startswith("deleted:")
    asked = pd.concat(pd.read_csv(path, usecols=["carrier", "distance"]) for path in months)
    found = pd.concat(pd.read_parquet(path) for path in sorted((bucket / "result").glob("*.parquet")))
    assert found.distance.sort_index().to_dict() == asked.groupby("carrier").distance.sum().to_dict()
