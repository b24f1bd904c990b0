"""What a real ResourceManager answers, under both schedulers, and what is known when it does not answer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.contract import YarnPlan
from mayfly.errors import YarnRefused, YarnUnavailable
from mayfly.yarn.facts import MIB, Life, NodeState, Size
from mayfly.yarn.resource_manager import ResourceManager
from scripts.hadoop import Hadoop
from tests.yarn import probes
from tests.yarn.fixtures import NODE_EXPIRY, VERSION

pytestmark = pytest.mark.timeout(1800)

MASTER = Size(memory=512 * MIB, cores=1)
WORKER = Size(memory=1024 * MIB, cores=1)


@pytest.fixture(scope="module")
def fair(tmp_path_factory: pytest.TempPathFactory, hadoop_session: Hadoop) -> Iterator[Hadoop]:
    folder = tmp_path_factory.mktemp("fair")
    with Hadoop(folder, VERSION, "fair", filesystem="viewfs", nodes=1, node_expiry=NODE_EXPIRY) as cluster:
        yield cluster


@pytest.fixture(params=["capacity", "fair"])
def cluster(request: pytest.FixtureRequest) -> Hadoop:
    """Capacity has two nodes, Fair one, of 6144 MB and 8 cores."""
    return request.getfixturevalue("hadoop" if request.param == "capacity" else "fair")


@pytest.fixture
def manager(cluster: Hadoop) -> ResourceManager:
    return found(cluster)


def found(cluster: Hadoop, user: str = "root") -> ResourceManager:
    return ResourceManager.find({**os.environ, **cluster.env, "HADOOP_USER_NAME": user})


def test_who_it_is(cluster: Hadoop, manager: ResourceManager) -> None:
    info = manager.info()
    assert info.active
    assert info.version == cluster.version
    assert info.started_at < time.time()
    assert manager.page == f"{cluster.rm_url}/cluster"
    assert manager.hosts == (("127.0.0.1", cluster.settings.ports["rm"]),)
    assert manager.site.is_file()
    nodes = manager.nodes()
    assert {node.state for node in nodes} == {NodeState.RUNNING}
    assert {node.total for node in nodes} == {Size(memory=6144 * MIB, cores=8)}
    queues = manager.queues()
    assert queues.kind == cluster.settings.scheduler
    assert {leaf.name for leaf in queues.leaves} - {"default"} == {"background", "batch", "interactive"}
    assert queues.step == 128 * MIB
    assert manager.labels() == ()
    assert manager.leaving() == ()


def test_what_can_never_run_is_refused(manager: ResourceManager) -> None:
    for given, worker, text in (
        (
            YarnPlan(queue="fast"),
            WORKER,
            "queue 'fast' does not exist; queues: background, batch, (default, )?interactive",
        ),
        (YarnPlan(), Size(memory=20 << 30, cores=1), r"largest container 6\.44 GB \(6144 MiB\) and 8 cores"),
        (YarnPlan(queue="batch"), Size(memory=1 << 30, cores=9), "and 9 cores does not fit"),
        (YarnPlan(node_label="gpu"), WORKER, "node label 'gpu' does not exist; this cluster has no node labels"),
    ):
        with pytest.raises(YarnRefused, match=text):
            manager.check(given, worker=worker, master=MASTER, workers=1)
    assert manager.check(YarnPlan(), worker=WORKER, master=MASTER, workers=2) == ()
    assert manager.check(YarnPlan(queue="root.batch"), worker=WORKER, master=MASTER, workers=2) == ()
    (*_, note) = manager.check(YarnPlan(queue="interactive"), worker=WORKER, master=MASTER, workers=99)
    assert "of the 99 workers that must be there" in note


def test_an_application_from_start_to_end(cluster: Hadoop, manager: ResourceManager) -> None:
    app_id = probes.submit(cluster, queue="batch")
    probes.running(cluster, app_id)
    application = manager.application(app_id)
    assert application.queue == "batch"
    assert application.user == "root"
    assert not application.life.ended
    assert application.submitted_at is not None
    (container,) = manager.containers(app_id)
    assert container.id == probes.container(cluster, app_id)
    assert container.host in {node.host for node in manager.nodes()}
    waiting = manager.why_waiting(app_id, wanted=3, have=0, worker=WORKER)
    assert waiting.startswith("0 of 3 workers")
    manager.kill(app_id)
    cluster.wait("it has ended", lambda: manager.state(app_id).ended)
    assert manager.state(app_id) is Life.KILLED
    manager.kill(app_id)  # once more does no harm
    account = manager.account([app_id, "application_1_0001"])
    assert account.applications == (app_id,)
    assert account.memory_mib_seconds > 0
    assert manager.containers(app_id) == () or manager.containers(app_id)[0].ended_at


def test_an_application_whose_lifetime_is_not_renewed_is_killed(cluster: Hadoop, manager: ResourceManager) -> None:
    app_id = probes.submit(cluster, queue="batch")
    probes.running(cluster, app_id)
    manager.renew(app_id, 600)
    manager.renew(app_id, 60)  # shorter, and not in the past when a slow machine has brought it
    cluster.wait("its lifetime is over", lambda: manager.state(app_id) is Life.KILLED)
    assert "lifetime" in manager.application(app_id).diagnostics


def test_an_application_that_nobody_knows_is_no_end(manager: ResourceManager) -> None:
    assert manager.state("application_1_0001") is Life.UNKNOWN
    manager.kill("application_1_0001")
    with pytest.raises(YarnRefused, match="not known to the ResourceManager"):
        manager.renew("application_1_0001", 10)
    assert manager.containers("application_1_0001") == ()
    assert "does not know" in manager.why_waiting("application_1_0001", wanted=2, have=1, worker=WORKER)


def test_applications_by_tag(hadoop: Hadoop) -> None:
    manager = found(hadoop)
    assert manager.applications("no such tag") == ()
    assert manager.applications("mayfly") == ()


def test_down_is_unknown_and_coming_back_is_fine(hadoop: Hadoop) -> None:
    manager = found(hadoop)
    app_id = probes.submit(hadoop, queue="batch")
    probes.running(hadoop, app_id)
    hadoop.kill_resourcemanager()
    assert manager.state(app_id) is Life.UNKNOWN
    for ask in (manager.info, manager.nodes, manager.queues, lambda: manager.kill(app_id)):
        with pytest.raises(YarnUnavailable, match="the ResourceManager does not answer"):
            ask()
    assert "does not answer" in manager.why_waiting(app_id, wanted=2, have=1, worker=WORKER)
    assert manager.account([app_id]).applications == ()
    hadoop.start_resourcemanager()
    hadoop.wait("it runs again", lambda: manager.state(app_id) in (Life.WAITING, Life.RUNNING))


def test_a_node_that_leaves_is_seen(hadoop: Hadoop) -> None:
    manager = found(hadoop)
    app_id = probes.submit(hadoop, queue="batch")
    probes.running(hadoop, app_id)
    node = probes.node_of(hadoop, app_id)
    hadoop.decommission(node, timeout=900)
    (leaving,) = manager.leaving()
    assert leaving.state is NodeState.DECOMMISSIONING
    assert manager.containers(app_id)[0].node.endswith(leaving.http)
    assert sorted(node.state for node in manager.nodes()) == [NodeState.DECOMMISSIONING, NodeState.RUNNING]


def test_the_standby_is_passed_over(hadoop: Hadoop, tmp_path: Path) -> None:
    """An HA pair of which the first is not there."""
    port, web = hadoop.settings.ports["rm"], hadoop.settings.ports["rm.web"]
    properties = {
        "yarn.resourcemanager.ha.enabled": "true",
        "yarn.resourcemanager.ha.rm-ids": "rm1, rm2",
        "yarn.resourcemanager.webapp.address.rm1": "127.0.0.1:9",
        "yarn.resourcemanager.address.rm1": "127.0.0.1:9",
        "yarn.resourcemanager.hostname.rm2": "127.0.0.1",
        "yarn.resourcemanager.webapp.address.rm2": "${yarn.resourcemanager.hostname.rm2}:" + str(web),
        "yarn.resourcemanager.address.rm2": f"127.0.0.1:{port}",
    }
    lines = [f"<property><name>{name}</name><value>{value}</value></property>" for name, value in properties.items()]
    (tmp_path / "yarn-site.xml").write_text(f"<configuration>{''.join(lines)}</configuration>")
    manager = ResourceManager.find({"HADOOP_CONF_DIR": str(tmp_path)})
    assert manager.hosts == (("127.0.0.1", 9), ("127.0.0.1", port))
    assert manager.info().active
    assert manager.page == f"http://127.0.0.1:{web}/cluster"
