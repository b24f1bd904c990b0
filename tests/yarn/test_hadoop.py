"""The Hadoop the other tests stand on: it starts, is what was asked for, can be hurt and healed, and leaves nothing."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.hadoop import Hadoop, HadoopError, stop
from scripts.hadoop.daemon import Daemon, marked, started
from tests.yarn import probes
from tests.yarn.fixtures import VERSION

pytestmark = pytest.mark.timeout(900)


def alive(pids: list[int]) -> bool:
    """Whether one of them runs; a process that waits to be reaped does not."""
    return any(started(pid) is not None for pid in pids)


def test_two_nodes_and_hdfs(hadoop: Hadoop) -> None:
    assert hadoop.node_states() == {1: "RUNNING", 2: "RUNNING"}
    hadoop.command("hdfs", "dfs", "-mkdir", "-p", "/probe")
    assert "/probe" in hadoop.command("hdfs", "dfs", "-ls", "/")
    classpath = hadoop.command("yarn", "classpath", "--glob").strip()
    assert classpath.startswith(str(hadoop.folder / "conf"))
    assert hadoop.get("info")["clusterInfo"]["resourceManagerVersion"] == hadoop.version


def test_an_application_without_a_queue_is_batch(hadoop: Hadoop) -> None:
    app_id = probes.submit(hadoop)
    probes.running(hadoop, app_id)
    assert hadoop.app(app_id)["queue"].removeprefix("root.") == "batch"


def test_applications_live_on_while_the_resourcemanager_restarts(hadoop: Hadoop) -> None:
    app_id = probes.submit(hadoop)
    pids = probes.running(hadoop, app_id)
    hadoop.kill_resourcemanager()
    with pytest.raises(OSError):
        hadoop.apps()
    hadoop.start_resourcemanager()
    assert hadoop.app(app_id)["state"] in ("ACCEPTED", "RUNNING")
    assert set(pids) & set(probes.running(hadoop, app_id))
    hadoop.kill_application(app_id)
    hadoop.wait("its processes have ended", lambda: not alive(pids))


def test_a_killed_application_master_ends_its_application(hadoop: Hadoop) -> None:
    app_id = probes.submit(hadoop)
    probes.running(hadoop, app_id)
    hadoop.kill_application_master(app_id)
    hadoop.wait("the application has failed", lambda: hadoop.app(app_id)["state"] == "FAILED")


def test_a_killed_node_is_lost_and_its_containers_are_orphans_or_die_with_it(tmp_path: Path) -> None:
    """On a Hadoop of its own, whose one node is lost soon."""
    with Hadoop(tmp_path / "hadoop", VERSION, filesystem="viewfs", nodes=1, node_expiry=60.0) as hadoop:
        app_id = probes.submit(hadoop)
        pids = probes.running(hadoop, app_id)
        hadoop.kill_node(1)
        assert alive(pids)
        hadoop.kill_node(1, containers=True)
        hadoop.wait("its processes have ended", lambda: not alive(pids))
        hadoop.wait("the node is lost", lambda: hadoop.node_states()[1] == "LOST")
        hadoop.start_node(1)
        assert hadoop.node_states() == {1: "RUNNING"}


def test_decommission_and_recommission(hadoop: Hadoop) -> None:
    app_id = probes.submit(hadoop)
    probes.running(hadoop, app_id)
    node = probes.node_of(hadoop, app_id)
    hadoop.decommission(node, timeout=900)
    assert hadoop.node_states()[node] == "DECOMMISSIONING"
    assert hadoop.node_states()[3 - node] == "RUNNING"
    hadoop.recommission(node)
    assert hadoop.node_states()[node] == "RUNNING"
    assert probes.running(hadoop, app_id)
    hadoop.decommission(node, graceful=False)
    assert hadoop.node_states()[node] == "DECOMMISSIONED"
    hadoop.recommission(node)
    assert hadoop.node_states() == {1: "RUNNING", 2: "RUNNING"}


@pytest.mark.parametrize("filesystem", ["file", "viewfs"])
def test_without_hdfs(filesystem: str, hadoop: Hadoop, tmp_path: Path) -> None:
    """Beside another Hadoop on the same machine; a container that is left over does not outlive it."""
    folder = tmp_path / "second"
    with Hadoop(folder, hadoop.version, scheduler="fair", filesystem=filesystem, nodes=1) as second:
        assert second.node_states() == {1: "RUNNING"}
        assert "namenode" not in second.daemons
        app_id = probes.submit(second, queue="interactive")
        pids = probes.running(second, app_id)
        assert second.app(app_id)["queue"] == "root.interactive"
        second.kill_node(1)
        assert set(pids) & set(marked("MAYFLY_HADOOP", str(folder)))
    assert not folder.exists()
    assert not marked("MAYFLY_HADOOP", str(folder))
    assert not alive(pids)


def test_a_folder_or_port_in_use_is_said(hadoop: Hadoop, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(HadoopError, match="is not empty: stop the Hadoop in it first"):
        Hadoop(tmp_path, hadoop.version).start()
    assert (tmp_path / "mine").exists()
    second = Hadoop(tmp_path / "second", hadoop.version)
    with socket.create_server(("127.0.0.1", second.settings.ports["rm.web"])):
        with pytest.raises(HadoopError, match=r"in use: 127\.0\.0\.1:\d+\. Is another Hadoop running"):
            second.start()


def test_a_daemon_that_dies_at_the_start_is_shown_with_its_last_words(hadoop: Hadoop, tmp_path: Path) -> None:
    bad = {"yarn.resourcemanager.scheduler.class": "no.such.Scheduler"}
    with pytest.raises(HadoopError, match=r"resourcemanager of Hadoop .* ended:\n(.|\n)*no\.such\.Scheduler"):
        Hadoop(tmp_path / "bad", hadoop.version, filesystem="file", nodes=1, settings=bad).start()
    assert not (tmp_path / "bad").exists()


def test_stop_knows_a_daemon_from_a_process_that_has_got_its_pid(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    (folder / "pids").mkdir(parents=True)
    (folder / "logs").mkdir()
    daemon = Daemon("node1", folder)
    daemon.start([sys.executable, "-c", "import time; time.sleep(600)"], {})
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as stranger:
        known = json.loads(daemon.file.read_text())
        (folder / "pids" / "namenode.json").write_text(json.dumps(known | {"pid": stranger.pid, "started": "1"}))
        (folder / "pids" / "datanode.json").write_text("{half")
        assert stop(folder, [daemon])
        assert not folder.exists()
        assert not alive([known["pid"]])
        assert stranger.poll() is None
        stranger.send_signal(signal.SIGKILL)
    assert not stop(folder)
