"""Runs beside each other and after each other: two queues at once, a driver out of reach, a delete that asks YARN."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mayfly.backends.yarn_left import end_applications
from mayfly.contract import Outcome
from mayfly.errors import BackendUnavailable
from mayfly.yarn.tags import tag_of
from scripts.hadoop import Hadoop
from tests.driver.driving import CLUSTER, Drive, Driving
from tests.yarn.fixtures import NODE_EXPIRY, VERSION
from tests.yarn.test_life import (
    PLAN,
    SLEEP,
    SOON_GONE,
    SUM,
    WORKS,
    containers,
    gone,
    kill_all,
    running,
    send,
    start,
    until,
)

pytestmark = pytest.mark.timeout(1800)


def test_two_runs_at_once_in_two_queues(hadoop: Hadoop, driving: Driving, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = WORKS.format(go=str(go))
    drives = {}
    for queue in ("interactive", "background"):
        plan = replace(PLAN, queue=queue)
        drives[queue] = start(driving, hadoop, script, minimum=1, yarn=plan, cluster=f"{CLUSTER}-{queue}")
    for drive in drives.values():
        drive.wait_for_line("GO")
    for queue, drive in drives.items():
        (app,) = hadoop.apps(states="RUNNING", applicationTags=tag_of(drive.order.cluster))
        assert app["queue"].rpartition(".")[2] == queue
    go.touch()
    for drive in drives.values():
        record = drive.record()
        assert record.outcome is Outcome.SUCCESS, drive.log()
        assert "SUM 1770" in drive.log()
        assert record.workers_lost == 0


def test_a_driver_that_is_out_of_reach_leaves_nothing(hadoop: Hadoop, driving: Driving) -> None:
    """Stopped, not ended: as behind a cut cable no connection is closed, and nothing answers any more."""
    drive = start(driving, hadoop, SLEEP, yarn=SOON_GONE)
    drive.wait_for_line("GO")
    (application,) = running(hadoop)
    ours = [*drive.descendants(), psutil.Process(drive.process.pid)]
    send(ours, signal.SIGSTOP)
    try:
        gone(hadoop)
        until(lambda: not containers(application))
    finally:
        send(ours, signal.SIGKILL)


def test_delete_ends_what_a_dead_driver_has_left(hadoop_env: Hadoop, driving: Driving) -> None:
    drive = left_behind(hadoop_env, driving)
    (application,) = running(hadoop_env)
    assert end_applications(CLUSTER, owner="somebody-else") == ()
    assert running(hadoop_env) == [application], "it is not theirs"
    until(lambda: end_applications(CLUSTER, owner=drive.order.owner) == ())
    assert running(hadoop_env) == []
    assert end_applications(CLUSTER, owner=drive.order.owner) == (), "again, and nothing happens"


def test_while_yarn_is_silent_nothing_is_proven(hadoop_env: Hadoop, driving: Driving) -> None:
    drive = left_behind(hadoop_env, driving)
    hadoop_env.kill_resourcemanager()
    with pytest.raises(BackendUnavailable, match="whether YARN applications of it are left is not known"):
        end_applications(CLUSTER, owner=drive.order.owner)
    hadoop_env.start_resourcemanager()
    until(lambda: end_applications(CLUSTER, owner=drive.order.owner) == ())
    assert running(hadoop_env) == []


def left_behind(hadoop: Hadoop, driving: Driving) -> Drive:
    """A driver that was killed, and whose application would wait long for it."""
    drive = start(driving, hadoop, SLEEP, minimum=1)
    drive.wait_for_line("GO")
    kill_all(drive)
    return drive


def test_a_node_with_a_full_disk_is_left_out(tmp_path: Path, driving: Driving) -> None:
    """As YARN sees it: less room than its disk checker asks for. The job runs on the other node, and loses nothing."""
    full = "<property><name>yarn.nodemanager.disk-health-checker.min-free-space-per-disk-mb</name><value>{}</value>"
    with Hadoop(tmp_path / "hadoop", VERSION, filesystem="viewfs", node_expiry=NODE_EXPIRY) as hadoop:
        hadoop.kill_node(2)
        site = hadoop.folder / "node2" / "conf" / "yarn-site.xml"
        more = full.format(2**30) + "</property></configuration>"
        site.write_text(site.read_text().replace("</configuration>", more))
        hadoop._launch("node2")
        hadoop.wait("node 2 unhealthy", lambda: hadoop.node_states().get(2) == "UNHEALTHY")
        drive = start(driving, hadoop, SUM.replace("range(60)", "range(20)"))
        record = drive.record()
        assert record.outcome is Outcome.SUCCESS, drive.log()
        assert record.workers_lost == 0
        assert record.yarn is not None
        assert set(record.yarn.nodes) == {"localhost"}


def test_the_application_master_leaves_nodes_that_may_vanish(hadoop: Hadoop, driving: Driving) -> None:
    """Before any worker is asked for; where there is no better place, the job goes on all the same."""
    plan = replace(PLAN, master_not_on=r"^(localhost|127\.0\.0\.\d)$")
    drive = start(driving, hadoop, SUM.replace("range(60)", "range(8)"), yarn=plan)
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS, drive.log()
    assert drive.log().count("which may vanish: submitting anew") == 3
    assert "the application master stays on" in drive.log()
    assert record.yarn is not None
    assert len(set(record.yarn.applications)) == 4
    assert record.yarn.containers_started == 2, "the workers, asked for once"
    gone(hadoop)
