"""A profile on its way: from config/profiles.yaml through plan and driver to scheduler and workers."""

from __future__ import annotations

from .conftest import Cli

PROFILES = """
profiles:
  own:
    workers: {min: 1, max: 3}
    worker: {cores: 2, memory: 700 MB}
    start_timeout: 290s
    dask:
      distributed.worker.memory: {target: 0.85, spill: 0.90, pause: 0.95, terminate: 0.98}
      distributed.adaptive: {interval: 2s, wait-count: 33, target-duration: 30s}
"""
JOB = """
retries: 0
timeout: 20m
cluster:
  profile: own
  worker: {cores: 1}
  yarn: {queue: batch}
  dask: {distributed.worker.memory.pause: 0.96}
"""
SCRIPT = """
import json
import dask
from dask.distributed import Client

def worker(dask_worker):
    memory = dask_worker.memory_manager
    return [dask_worker.state.nthreads, memory.memory_limit, memory.memory_target_fraction,
            memory.memory_spill_fraction, memory.memory_pause_fraction]

def scheduler():
    return dask.config.get("distributed.adaptive")

with Client() as client:
    print("TOLD", json.dumps([list(client.run(worker).values())[0], client.run_on_scheduler(scheduler)]))
"""


def test_a_profile_reaches_scheduler_and_workers(cli: Cli) -> None:
    (cli.home / "config" / "profiles.yaml").write_text(PROFILES)
    folder = cli.home / "jobs" / "trips"
    folder.mkdir()
    (folder / "job.yaml").write_text(JOB)
    (folder / "trips.py").write_text(SCRIPT)
    done = cli("run", "trips")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "profile   own gave workers.min 1, workers.max 3, worker.memory 700 MB, dask." in done.stdout
    assert "target local has no YARN: cluster.yarn (queue batch) is not used" in done.stdout
    assert "TOLD [[1, 700000000, 0.85, 0.9, 0.96], " in done.stdout
    assert '"wait-count": 33' in done.stdout and '"interval": "2s"' in done.stdout
    plan = cli.only_run().plan()
    assert plan is not None
    assert (plan.asked.minimum, plan.asked.maximum, plan.limits.start) == (1, 3, 290)


def test_an_unknown_profile_makes_nothing(cli: Cli) -> None:
    (cli.home / "config" / "profiles.yaml").write_text(PROFILES)
    cli.add_job("trips", "print(1)\n")
    (cli.home / "jobs" / "trips" / "job.yaml").write_text("cluster: {profile: onw}\n")
    for command in (["plan", "trips"], ["run", "trips"], ["validate"]):
        done = cli(*command)
        assert done.returncode == 2
        assert "jobs/trips/job.yaml:1: " in done.stdout + done.stderr
        assert "unknown profile 'onw'; did you mean 'own'? allowed: own" in done.stdout + done.stderr
    assert not cli.runs()


def test_a_machine_without_hadoop_makes_nothing(cli: Cli) -> None:
    """Else nobody could prove that nothing is left on YARN."""
    (cli.home / "config" / "targets.yaml").write_text("targets: {edge: {backend: local, launcher: yarn}}\n")
    cli.add_job("trips", "print(1)\n", "target: edge\n")
    (cli.home / "conf").mkdir()
    done = cli("run", "trips", more={"HADOOP_CONF_DIR": str(cli.home / "conf"), "HADOOP_HOME": ""})
    assert done.returncode == 2, done.stdout + done.stderr
    assert "target 'edge' needs this machine to be a node of a Hadoop cluster: no yarn-site.xml in" in done.stderr
    assert "HADOOP_CONF_DIR" in done.stderr
    (cli.home / "conf" / "yarn-site.xml").write_text("<configuration/>")
    (cli.home / "conf" / "core-site.xml").write_text(
        "<configuration><property><name>hadoop.security.authentication</name><value>kerberos</value></property>"
        "</configuration>"
    )
    done = cli("run", "trips", more={"HADOOP_CONF_DIR": str(cli.home / "conf")})
    assert done.returncode == 2
    assert "demands Kerberos" in done.stderr
    assert not cli.runs()
