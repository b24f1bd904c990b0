"""The queues of config/yarn on a real ResourceManager, under both schedulers: they exist, limits and preemption act."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from scripts.hadoop import Hadoop
from tests.yarn import probes
from tests.yarn.fixtures import NODE_EXPIRY, VERSION

skein = pytest.importorskip("skein")

# Preemption takes its time, and each application some Java processes: with a load of 30 on 2 cores, 183 s.
pytestmark = pytest.mark.timeout(900)

CLUSTER_MB = 2 * 6144


@pytest.fixture(scope="module")
def fair(tmp_path_factory: pytest.TempPathFactory, hadoop_session: Hadoop) -> Iterator[Hadoop]:
    """Without HDFS: lighter, and proof that the queues do not care."""
    folder = tmp_path_factory.mktemp("fair")
    with Hadoop(folder, VERSION, scheduler="fair", filesystem="viewfs", node_expiry=NODE_EXPIRY) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=["capacity", "fair"])
def cluster(request: pytest.FixtureRequest, hadoop_session: Hadoop) -> Hadoop:
    return hadoop_session if request.param == "capacity" else request.getfixturevalue("fair")


@pytest.fixture(scope="module")
def client(cluster: Hadoop) -> Iterator[Any]:
    """A client of the cluster that may submit for any user."""
    before = dict(os.environ)
    os.environ |= cluster.env
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it compares versions by distutils
            # Credentials of its own: skein would keep them in the user's home.
            made = skein.Client(security=skein.Security.new_credentials(), log=False, java_options=["-Xmx128m"])
        with made:
            yield made
    finally:
        os.environ.clear()
        os.environ |= before


@pytest.fixture(autouse=True)
def _healed(cluster: Hadoop) -> Iterator[None]:
    yield
    cluster.heal()


def hold(client: Any, *, user: str, queue: str, containers: int, memory_mb: int) -> str:
    """Start an application that wants so many containers beside its master (256 MB) and keeps them; its id."""
    worker = skein.Service(
        instances=containers,
        resources=skein.Resources(memory=f"{memory_mb} MiB", vcores=1),
        script="sleep 600",
        max_restarts=-1,
        allow_failures=True,
    )
    master = skein.Master(resources=skein.Resources(memory="256 MiB", vcores=1), script="sleep 600")
    return client.submit(skein.ApplicationSpec(user=user, queue=queue, master=master, services={"worker": worker}))


def leaves(cluster: Hadoop) -> dict[str, dict[str, Any]]:
    """Queues one can submit to, by their short names."""

    def walk(queue: dict[str, Any]) -> Iterator[dict[str, Any]]:
        below = (queue.get("queues") or queue.get("childQueues") or {}).get("queue", [])
        for child in below:
            yield from walk(child)
        if not below:
            yield queue

    info = cluster.get("scheduler")["scheduler"]["schedulerInfo"]
    return {queue["queueName"].removeprefix("root."): queue for queue in walk(info.get("rootQueue", info))}


def test_the_queues_are_there(cluster: Hadoop) -> None:
    queues = leaves(cluster)
    assert sorted(queues) == ["background", "batch", "interactive"]
    if cluster.settings.scheduler == "capacity":
        for name, share, most in (("interactive", 30, 60), ("batch", 50, 100), ("background", 20, 100)):
            assert queues[name]["capacity"] == pytest.approx(share, abs=0.01)
            assert queues[name]["maxCapacity"] == pytest.approx(most, abs=0.01)
    else:
        # Steady share by weight 3 : 5 : 2; the ceiling of `interactive` is 60 %.
        assert queues["interactive"]["maxResources"]["memory"] == pytest.approx(0.6 * CLUSTER_MB, abs=2)
        shares = {name: queue["steadyFairResources"]["memory"] for name, queue in queues.items()}
        assert shares["batch"] == pytest.approx(0.5 * CLUSTER_MB, abs=130)
        assert not queues["interactive"]["preemptable"]


def test_a_queue_that_is_not_there(cluster: Hadoop, client: Any) -> None:
    """The CapacityScheduler refuses it. The FairScheduler knows no way to do so and still have a default queue."""
    if cluster.settings.scheduler == "capacity":
        with pytest.raises(skein.DriverError):
            hold(client, user="alice", queue="fast", containers=0, memory_mb=128)
        assert "unknown queue: fast" in cluster.apps(states="FAILED")[0]["diagnostics"]
    else:
        app_id = hold(client, user="alice", queue="fast", containers=0, memory_mb=128)
        assert cluster.app(app_id)["queue"] == "root.batch"


def test_one_user_cannot_have_it_all(cluster: Hadoop, client: Any) -> None:
    if cluster.settings.scheduler == "fair":
        asked = [probes.submit(cluster, user="alice", queue="batch", memory_mb=128) for _ in range(7)]
        for app_id in asked[:6]:
            probes.running(cluster, app_id)
        other = probes.submit(cluster, user="bob", queue="batch", memory_mb=128)
        probes.running(cluster, other)
        # The seventh of alice waits, although there is room: bob's, asked for later, runs.
        assert cluster.app(asked[6])["runningContainers"] in (0, -1)
        cluster.kill_application(asked[0])
        probes.running(cluster, asked[6])
        return
    alice = hold(client, user="alice", queue="interactive", containers=8, memory_mb=768)
    # Her limit is 30 % of the cluster (3686 MB), passed by at most one container, though 60 % is the queue's.
    limit = 0.3 * CLUSTER_MB
    cluster.wait("alice at her limit", lambda: cluster.app(alice)["allocatedMB"] > limit - 768)
    bob = hold(client, user="bob", queue="interactive", containers=2, memory_mb=768)
    cluster.wait("bob with all he wants", lambda: cluster.app(bob)["runningContainers"] == 3)
    assert limit - 768 < cluster.app(alice)["allocatedMB"] <= limit + 768
    assert leaves(cluster)["interactive"]["resourcesUsed"]["memory"] <= 0.6 * CLUSTER_MB


def test_a_queue_gets_its_share_back(cluster: Hadoop, client: Any) -> None:
    background = hold(client, user="alice", queue="background", containers=11, memory_mb=1024)
    cluster.wait("all of the cluster is used", lambda: cluster.app(background)["runningContainers"] == 12)
    batch = hold(client, user="bob", queue="batch", containers=4, memory_mb=1024)
    cluster.wait("batch has what it asked for", lambda: cluster.app(batch)["runningContainers"] == 5)
    taken = cluster.app(background)
    assert taken["numNonAMContainerPreempted"] >= 4
    assert taken["numAMContainerPreempted"] == 0
    assert taken["state"] == "RUNNING"
    assert cluster.app(batch)["numNonAMContainerPreempted"] == 0
