"""The whole mission on real nodes: create, set up, run on data of a bucket and of NFS, lose nodes, delete, prove."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil
import pytest

from mayfly.contract import FailureClass, Outcome
from mayfly.staging.stores import open_store
from tests.cloud.conftest import BUCKET, Cloud
from tests.emulators.dataproc.nodes.hadoop import HADOOP_GROUP
from tests.processes import marked

WORKS = """
import collections, os, socket, sys, time, urllib.error, urllib.request
from dask.distributed import Client, as_completed

def work(number):
    time.sleep(0.5)
    return number, socket.gethostname()

def told_to_end():
    there = f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b/mayfly-runs/o/{sys.argv[2]}"
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(there).close()
    except urllib.error.HTTPError:
        return False
    return True

client = Client()
print("working", flush=True)
last = False
while not last:
    last = told_to_end()
    done = as_completed(client.map(work, range(int(sys.argv[1])), pure=False), with_results=True)
    results = [result for _, result in done]
print("sum", sum(number for number, _ in results))
print("on", sorted(collections.Counter(host.rpartition("-")[2] for _, host in results)))
"""
NOBODY = 65534
pytestmark = pytest.mark.timeout(2400)


def put_flights(folder: Path) -> None:
    """Two months of the demo's data, small enough for a test, into the bucket."""
    store = open_store(f"gs://{BUCKET}")
    for path in sorted(folder.glob("flights-2013-0[12].csv")):
        store.put(f"data/flights/{path.name}", path.read_bytes())


def test_the_demo_reads_a_bucket_and_writes_to_nfs(cloud: Cloud, flights_data: Path) -> None:
    put_flights(flights_data)
    job = cloud.home / "jobs" / "flights" / "job.yaml"
    text = job.read_text().replace("delays: data/results/delays", "delays: /shared/lake/delays")
    job.write_text(re.sub(r"^target: .*\ntargets: .*$", "target: lake\ntargets: [lake]", text, flags=re.M))
    # As docs/gcp.md asks of an export that squashes root: the script is its owner there, the workers are in its group.
    os.chown(cloud.lake, NOBODY, HADOOP_GROUP)
    cloud.lake.chmod(0o2775)
    run = cloud.start("run", "flights", "--target", "lake", "--param", "last_month=2")
    text = run.end(0)
    for node in ("m", "w-0", "w-1"):
        assert f"node {run.rundir.name}-{node} is set up" in text
    record, receipt = run.record(), run.receipt()
    assert record.outcome is Outcome.SUCCESS and record.peaks.workers == 4 and record.yarn is not None
    assert len(record.yarn.nodes) == 2, "its workers were on both nodes"
    assert receipt.rule.startswith("deleted:")
    assert list(cloud.lake.rglob("*.parquet")), "its result is on the share"
    assert cloud.emulator.history()[-1]["how_gone"] == "delete"


def test_a_preempted_and_a_lost_node_cost_time_and_nothing_else(cloud: Cloud) -> None:
    cloud.add_job("works", WORKS, target="spot", workers=6, memory="2500 MB", more="args: ['48', 'works-end']\n")
    run = cloud.start("run", "works")
    run.wait_for("^working")
    (cluster,) = cloud.emulator.clusters()
    (spot,) = [name for name in cluster["machines"] if "-sw-" in name]
    cloud.emulator.node(cluster["name"], spot, "preempt")
    run.wait_for(r"worker \d+ has left \S+-sw-\S+, with its results")
    cloud.emulator.node(cluster["name"], spot, "lose")
    victim = next(name for name in cluster["machines"] if "-w-" in name and not _has_application_master(name))
    cloud.emulator.node(cluster["name"], victim, "lose")
    run.wait_for("lost the worker at")
    open_store(f"gs://{BUCKET}").put("works-end", b"")
    text = run.end(0)
    assert f"sum {sum(range(48))}" in text
    record = run.record()
    assert record.outcome is Outcome.SUCCESS and record.workers_lost >= 1
    assert run.receipt().rule.startswith("deleted:")


def _has_application_master(node: str) -> bool:
    return any(
        "com.anaconda.skein.ApplicationMaster" in (process.info["cmdline"] or []) and _node_of(process) == node
        for process in psutil.process_iter(["cmdline"])
    )


def _node_of(process: psutil.Process) -> str:
    """The name of the node in which it runs."""
    try:
        return Path("/proc", str(process.pid), "root", "etc", "hostname").read_text().strip().partition(".")[0]
    except OSError:
        return ""


def test_a_node_that_cannot_be_set_up_says_why(cloud: Cloud) -> None:
    cloud.add_job("dry", WORKS, target="drought", workers=2, more="args: ['1', 'never']\n")
    run = cloud.start("run", "dry")
    text = run.end(1)
    assert f"node {run.rundir.name}-w-0 could not be set up" in text
    assert "there is no directory /mnt/nothing on this node" in text
    assert "init action" in text and "init action failed on" in text
    assert run.receipt().rule.startswith("deleted:")
    assert cloud.emulator.jobs() == [job for job in cloud.emulator.jobs() if run.rundir.name not in str(job)]


def test_a_killed_driver_is_explained_and_its_cluster_deleted(cloud: Cloud) -> None:
    cloud.add_job("killed", WORKS, target="plain", workers=2, more="args: ['1000', 'never']\n")
    run = cloud.start("run", "killed")
    run.wait_for("^working")
    mine = [process for process in psutil.process_iter(["cmdline"]) if _is(process, run.rundir.name)]
    drivers = [process for process in mine if "mayfly.driver" in (process.info["cmdline"] or [])]
    min(drivers, key=psutil.Process.create_time).kill()  # a child that it has just forked looks like it
    run.end(1)
    record = run.record()
    assert record.outcome is Outcome.FAILED and record.by == "orchestrator"
    assert record.failure is not None and record.failure.cls is FailureClass.DRIVER_DIED
    assert run.receipt().rule.startswith("deleted:")
    assert [process for process in psutil.process_iter() if _is(process, run.rundir.name)] == []


def _is(process: psutil.Process, cluster: str) -> bool:
    try:
        return marked("MAYFLY_CLUSTER", cluster)(process)
    except psutil.Error:
        return False
