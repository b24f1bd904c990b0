"""hdfs:// by Arrow, as where hdfs-native is not in the job's environment: `make test-libhdfs`.

No part of `make test`: it takes a C compiler, see scripts/hadoop/libhdfs.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from mayfly.contract import FailureClass, Limits, Outcome, YarnPlan
from scripts.hadoop import Hadoop
from scripts.hadoop.libhdfs import library
from tests.driver.driving import PATIENCE, Drive, Driving
from tests.yarn.fixtures import GRACE

SCRIPT = """
import os, sys
import fsspec
import pandas as pd
import dask.dataframe as dd
from dask.distributed import Client

def seen():
    return type(fsspec.url_to_fs("hdfs:///")[0]).__module__, os.environ["HADOOP_USER_NAME"], os.getpid()

with Client() as client:
    frame = dd.from_pandas(pd.DataFrame({"a": range(1000)}), npartitions=4)
    frame.to_parquet("hdfs:///user/arrow/table")
    print("SUM", dd.read_parquet("hdfs:///user/arrow/table").a.sum().compute(), flush=True)
    print("BY", {(module, user) for module, user, _ in client.run(seen).values()}, flush=True)
"""
pytestmark = pytest.mark.timeout(1800)


def run(driving: Driving, hadoop: Hadoop, **given: Any) -> Drive:
    native = hadoop.folder / "lib" / "native"  # beside the folder of the command `hdfs`
    native.mkdir(parents=True, exist_ok=True)
    if not (native / "libhdfs.so").exists():
        (native / "libhdfs.so").symlink_to(library())
    plan, limits = YarnPlan(fast_heartbeat=True, grace=GRACE), Limits(start=600, job=600, stall=0)
    drive = driving.start(
        {"job.py": SCRIPT}, environment=hadoop.env, launcher="yarn", yarn=plan, limits=limits, memory=1 << 30, **given
    )
    drive.record(timeout=limits.start + limits.job + PATIENCE)
    return drive


def test_arrow_finds_all_it_needs_in_script_and_containers(driving: Driving, hadoop: Hadoop) -> None:
    drive = run(driving, hadoop, outputs={"table": "hdfs:///user/arrow"})
    assert drive.record().outcome is Outcome.SUCCESS, drive.log()
    assert f"SUM {sum(range(1000))}" in drive.log()
    assert "BY {('fsspec.implementations.arrow', 'root')}" in drive.log()


def test_arrows_not_found_is_not_taken_for_an_answer(driving: Driving, hadoop: Hadoop) -> None:
    drive = run(driving, hadoop, inputs={"table": "hdfs://127.0.0.1:9/data"})
    failure = drive.record().failure
    assert failure is not None and failure.cls is FailureClass.NETWORK, drive.log()
    assert "the NameNode does not answer" in failure.summary() and "ConnectException" in drive.log()
