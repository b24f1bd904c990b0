"""The emulated ClusterController as Google's own client sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.dataproc_v1 import AutoscalingPolicy, CreateClusterRequest

from tests.emulators.dataproc.client import Emulator
from tests.emulators.dataproc.clusters import Clusters
from tests.emulators.dataproc.machines import MachineCluster, MachineNode, NoMachines, YarnLoad
from tests.emulators.dataproc.objects import Objects
from tests.emulators.dataproc.scaler import target, watch
from tests.emulators.dataproc.sdk import PARENT, PROJECT, REGION, SECONDS, WHERE, Google
from tests.emulators.dataproc.shapes import name_instances
from tests.emulators.dataproc.world import ClusterPb, PolicyPb, State, World

N2 = {"machine_type_uri": "n2-standard-4"}
WORKERS = {"master_config": N2, "worker_config": {"num_instances": 2, **N2}}
ZERO = {"software_config": {"properties": {"dataproc:dataproc.allow.zero.workers": "true"}}}


def until(holds: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return value


def gone(google: Google, name: str = "c") -> bool:
    try:
        google.get(name)
    except exceptions.NotFound:
        return True
    return False


@pytest.fixture(params=["grpc", "rest"])
def either(request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[Google]:
    client = Google(emulator, rest=request.param == "rest")
    yield client
    client.close()


def test_a_cluster_lives_and_is_gone(either: Google, emulator: Emulator) -> None:
    """The same handlers over gRPC and over REST, through Google's long-running operations."""
    making = emulator.rule(on="boot", do="stuck")
    operation = either.create(wait=False, labels={"run": "r1"}, config=WORKERS)
    assert either.state() == "CREATING"
    emulator.remove_rule(making)
    cluster = operation.result(timeout=SECONDS)
    assert cluster.status.state.name == "RUNNING"
    assert [status.state.name for status in cluster.status_history] == ["CREATING"]
    assert cluster.labels["run"] == "r1" and cluster.labels["goog-dataproc-cluster-name"] == "c"
    assert list(cluster.config.worker_config.instance_names) == ["c-w-0", "c-w-1"]
    assert cluster.config.software_config.image_version.startswith("2.2.")
    assert operation.metadata.cluster_uuid == cluster.cluster_uuid
    assert operation.metadata.status.state.name == "DONE" and operation.metadata.operation_type == "CREATE"
    assert either.list("labels.run = r1 AND status.state = ACTIVE") == ["c"]
    either.delete(uuid=cluster.cluster_uuid)
    assert gone(either) and either.list() == [] and emulator.clusters() == []
    assert emulator.calls()["CreateCluster"] == {"OK": 1}


def test_a_name_in_use(google: Google, emulator: Emulator) -> None:
    google.create()
    with pytest.raises(exceptions.AlreadyExists, match=f"Already exists: .*{PARENT}/clusters/c"):
        google.create()
    over_rest = Google(emulator, rest=True)
    with pytest.raises(exceptions.Conflict):
        over_rest.create()
    over_rest.close()


def test_one_request_id_is_one_operation(google: Google, emulator: Emulator) -> None:
    first = google.create(wait=False, request_id="abc")
    again = google.create(wait=False, request_id="abc")
    assert first.operation.name == again.operation.name
    assert len(emulator.history()) == 1


def test_deletion_names_the_uuid(google: Google, emulator: Emulator) -> None:
    going = emulator.rule(on="shutdown", do="stuck")
    google.create()
    with pytest.raises(exceptions.NotFound):
        google.delete(uuid="00000000-0000-0000-0000-000000000000")
    operation = google.delete(wait=False)
    assert google.state() == "DELETING" and emulator.clusters()[0]["machines"] == ["c-m"]
    with pytest.raises(exceptions.FailedPrecondition, match="pending delete"):
        google.delete()
    emulator.remove_rule(going)
    operation.result(timeout=SECONDS)
    with pytest.raises(exceptions.NotFound):
        google.delete()


def test_deleted_while_it_is_made(google: Google, emulator: Emulator) -> None:
    emulator.rule(on="boot", do="stuck")
    making = google.create(wait=False)
    google.delete()
    with pytest.raises(exceptions.Aborted):
        making.result(timeout=SECONDS)
    assert gone(google)


class SlowToJoin(NoMachines):
    """Nodes that are added come when they are let."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Objects(folder))
        self.started: list[str] = []
        self.let = threading.Event()

    def start(self, cluster: MachineCluster, nodes: Sequence[MachineNode], cancelled: threading.Event) -> None:
        self.started += [node.name for node in nodes]
        super().start(cluster, nodes, cancelled)

    def add(self, cluster: MachineCluster, nodes: Sequence[MachineNode]) -> None:
        self.let.wait()
        super().add(cluster, nodes)


@pytest.mark.parametrize("late", [1, 0])
def test_a_cluster_is_running_before_its_secondary_workers(late: int, tmp_path: Path) -> None:
    machines = SlowToJoin(tmp_path)
    world = World(folder=tmp_path, machines=machines, objects=Objects(tmp_path))
    world.settings.late_secondary = late
    config = {**WORKERS, "secondary_worker_config": {"num_instances": 1}}
    request = CreateClusterRequest({**WHERE, "cluster": {"cluster_name": "c", "config": config}})
    Clusters(world).create(CreateClusterRequest.pb(request))
    entry = world.clusters[PROJECT, REGION, "c"]
    until(lambda: entry.state == State.RUNNING)
    (secondary,) = entry.pb.config.secondary_worker_config.instance_names
    assert machines.started == ["c-m", "c-w-0", "c-w-1", *([] if late else [secondary])]
    assert not (late and entry.complete.is_set())
    machines.let.set()
    until(entry.complete.is_set)
    machines.fault(entry.spec, secondary, "lose")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "capital letters": ({"name": "Cluster"}, "Invalid cluster name"),
    "too long": ({"name": "c" * 52}, "Invalid cluster name"),
    "ends with a hyphen": ({"name": "c-"}, "Invalid cluster name"),
    "label value": ({"labels": {"a": "B c"}}, "Invalid label value"),
    "label key": ({"labels": {"1a": "b"}}, "Invalid label key"),
    "33 labels": ({"labels": {f"l{i}": "x" for i in range(33)}}, "No more than 32 labels"),
    "machine type": ({"config": {"master_config": {"machine_type_uri": "n2-standard-5"}}}, "n2-standard-5"),
    "image": ({"config": {"software_config": {"image_version": "9.9"}}}, "image version '9.9'"),
    "property": ({"config": {"software_config": {"properties": {"dask:a": "b"}}}}, "property prefix 'dask'"),
    "one worker": ({"config": {"worker_config": {"num_instances": 1}}}, "at least 2 primary workers"),
    "no workers": ({"config": {"worker_config": {"num_instances": 0}}}, "allow.zero.workers"),
    "zone": ({"config": {"gce_cluster_config": {"zone_uri": "us-central1-a"}}}, "not in region"),
    "age": ({"config": {"lifecycle_config": {"auto_delete_ttl": {"seconds": 60}}}}, "auto_delete_ttl"),
    "idle": ({"config": {"lifecycle_config": {"idle_delete_ttl": {"seconds": 60}}}}, "idle_delete_ttl"),
    "bucket": ({"config": {"config_bucket": "gs://bucket"}}, "without gs://"),
    "init action": ({"config": {"initialization_actions": [{"executable_file": "x.sh"}]}}, "initialization action"),
    "tag": ({"config": {"gce_cluster_config": {"tags": ["A_b"]}}}, "network tag"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_makes_nothing(case: str, google: Google, emulator: Emulator) -> None:
    given, said = BAD[case]
    with pytest.raises(exceptions.InvalidArgument, match=said):
        google.create(**given)
    assert emulator.history() == []


def test_what_else_a_create_is_refused_for(google: Google, emulator: Emulator) -> None:
    request = {"project_id": PROJECT, "region": "mars-north1", "cluster": {"cluster_name": "c"}}
    with pytest.raises(exceptions.InvalidArgument, match="mars-north1"):
        google.clusters.create_cluster(request=request, retry=None)
    with pytest.raises(exceptions.NotFound, match="policy"):
        google.create(config={**WORKERS, "autoscaling_config": {"policy_uri": f"{PARENT}/autoscalingPolicies/none"}})
    emulator.settings(cpus=10)
    with pytest.raises(exceptions.InvalidArgument, match=r"Insufficient 'CPUS' quota. Requested 12.0, available 10.0"):
        google.create(config=WORKERS)
    emulator.settings(cpus=0, cluster_quota=1)
    google.create("within")
    with pytest.raises(exceptions.ResourceExhausted, match="per minute"):
        google.create("beyond")


def test_lists(google: Google) -> None:
    for number in range(5):
        google.create(f"c{number}", labels={"run": f"r{number % 2}", "all": ""}, config=ZERO)
    assert sorted(google.list("labels.run = r1")) == ["c1", "c3"]
    assert google.list("labels.run = r1 AND clusterName = c3 AND labels.all = *") == ["c3"]
    assert google.list('labels.run="r1"  labels.all:* clusterName=c1') == ["c1"]
    assert google.list("labels.none = *") == [] == google.list("status.state = INACTIVE")
    assert sorted(google.list(page_size=2)) == [f"c{number}" for number in range(5)]
    with pytest.raises(exceptions.InvalidArgument, match="filter"):
        google.list("labels.run != r1")


def test_lists_may_lag(google: Google, emulator: Emulator) -> None:
    emulator.settings(list_lag=3600)
    google.create()
    assert google.list() == [] and google.state() == "RUNNING"
    emulator.settings(list_lag=0.2)
    assert until(google.list) == ["c"]


def test_update(google: Google, emulator: Emulator) -> None:
    google.create(config=WORKERS)
    size = "config.worker_config.num_instances"
    google.update({"config": {"worker_config": {"num_instances": 4}}}, size)
    assert emulator.clusters()[0]["machines"] == ["c-m", "c-w-0", "c-w-1", "c-w-2", "c-w-3"]
    google.update({"config": {"worker_config": {"num_instances": 2}}}, size)
    spot = {"config": {"secondary_worker_config": {"num_instances": 2}}}
    updated = google.update(spot, "config.secondary_worker_config.num_instances")
    names = list(updated.config.secondary_worker_config.instance_names)
    assert len(set(names)) == 2 and all(name.startswith("c-sw-") and len(name) == len("c-sw-1234") for name in names)
    google.update({"labels": {"new": "label"}}, "labels")
    assert google.get().labels["new"] == "label" and google.get().labels["goog-dataproc-location"] == REGION
    with pytest.raises(exceptions.InvalidArgument, match="at least 2 primary"):
        google.update({"config": {"worker_config": {"num_instances": 1}}}, size)
    with pytest.raises(exceptions.InvalidArgument, match="update_mask"):
        google.update({"config": {}}, "config.master_config")
    emulator.set_state("c", "ERROR", detail="broken")
    with pytest.raises(exceptions.FailedPrecondition, match="ERROR"):
        google.update(spot, size)


def test_stop_start_and_diagnose(google: Google, emulator: Emulator) -> None:
    google.create()
    request = {**WHERE, "cluster_name": "c"}
    google.clusters.stop_cluster(request=request).result(timeout=SECONDS)
    assert google.state() == "STOPPED"
    google.clusters.start_cluster(request=request).result(timeout=SECONDS)
    assert google.state() == "RUNNING"
    found = google.clusters.diagnose_cluster(request=request).result(timeout=SECONDS)
    bucket, _, path = found.output_uri.removeprefix("gs://").partition("/")
    assert (emulator.folder / "buckets" / bucket / path).stat().st_size > 0


def test_every_state_can_be_shown(google: Google, emulator: Emulator) -> None:
    google.create()
    for state in ("ERROR_DUE_TO_UPDATE", "REPAIRING", "UNKNOWN", "STOPPING", "RUNNING"):
        emulator.set_state("c", state, detail="why", substate="UNHEALTHY")
        status = google.get().status
        assert (status.state.name, status.detail, status.substate.name) == (state, "why", "UNHEALTHY")


# ---------------------------------------------------------------- nets


def test_the_oldest_age_counts_from_the_request(google: Google, emulator: Emulator) -> None:
    """Also where a cluster never comes to be."""
    emulator.rule(on="boot", do="stuck", cluster="stuck")
    lifecycle = {"config": {"lifecycle_config": {"auto_delete_ttl": {"seconds": 600}}}}
    google.create("stuck", wait=False, **lifecycle)
    google.create("fine", **lifecycle)
    left = google.get("fine").config.lifecycle_config.auto_delete_time.timestamp() - time.time()
    assert 400 < left <= 600
    emulator.settings(speed=1_000_000)
    until(lambda: emulator.clusters() == [])
    assert {each["name"]: each["how_gone"] for each in emulator.history()} == {
        "stuck": "auto_delete_ttl",
        "fine": "auto_delete_ttl",
    }


def test_idle_clusters_go_and_busy_ones_stay(google: Google, emulator: Emulator) -> None:
    working = emulator.rule(on="job", do="body", seconds=3600)
    lifecycle = {"config": {"lifecycle_config": {"idle_delete_ttl": {"seconds": 300}}}}
    google.create("idle", **lifecycle)
    google.create("busy", **lifecycle)
    google.submit("gs://b/main.py", cluster="busy")
    until(lambda: google.job().status.state.name == "RUNNING")
    emulator.settings(speed=1_000_000)
    until(lambda: [each["name"] for each in emulator.clusters()] == ["busy"])
    assert google.job().status.state.name == "RUNNING"
    emulator.remove_rule(working)
    until(lambda: emulator.clusters() == [])
    assert google.job().status.state.name == "DONE"
    assert {each["how_gone"] for each in emulator.history()} == {"idle_delete_ttl"}


# ---------------------------------------------------------------- autoscaling


def policy(**more: Any) -> dict[str, Any]:
    yarn = {"graceful_decommission_timeout": {"seconds": 60}, "scale_up_factor": 1.0, "scale_down_factor": 1.0}
    group = {"min_instances": 2, "max_instances": 2}
    return {
        "id": "pol",
        "basic_algorithm": {"yarn_config": yarn, "cooldown_period": {"seconds": 120}},
        "worker_config": group,
        "secondary_worker_config": {"max_instances": 4},
        **more,
    }


def test_policies(either: Google, emulator: Emulator) -> None:
    name = f"{PARENT}/autoscalingPolicies/pol"
    made = either.policies.create_autoscaling_policy(parent=PARENT, policy=policy(), retry=None)
    assert made.name == name
    with pytest.raises(exceptions.Conflict):  # AlreadyExists is one
        either.policies.create_autoscaling_policy(parent=PARENT, policy=policy(), retry=None)
    changed = either.policies.update_autoscaling_policy(policy=policy(name=name, labels={"a": "b"}), retry=None)
    assert changed.labels["a"] == "b"
    assert [each.id for each in either.policies.list_autoscaling_policies(parent=PARENT)] == ["pol"]
    either.create(config={**WORKERS, "autoscaling_config": {"policy_uri": name}})
    with pytest.raises((exceptions.FailedPrecondition, exceptions.BadRequest), match="in use"):
        either.policies.delete_autoscaling_policy(name=name, retry=None)
    either.delete()
    either.policies.delete_autoscaling_policy(name=name, retry=None)
    with pytest.raises(exceptions.NotFound):
        either.policies.get_autoscaling_policy(name=name, retry=None)
    with pytest.raises(exceptions.BadRequest, match="cooldown"):
        algorithm = {**policy()["basic_algorithm"], "cooldown_period": {"seconds": 5}}
        either.policies.create_autoscaling_policy(parent=PARENT, policy=policy(basic_algorithm=algorithm), retry=None)


def test_the_simulated_scaler(google: Google) -> None:
    """As a function of what YARN says; with real nodes it is asked of the ResourceManager."""
    made = google.policies.create_autoscaling_policy(parent=PARENT, policy=policy(), retry=None)
    rule = PolicyPb.FromString(type(made).serialize(made))
    properties = {"properties": {"yarn:yarn.nodemanager.resource.memory-mb": "1000"}}
    cluster = google.create(config={**WORKERS, "software_config": properties})
    pb = ClusterPb.FromString(type(cluster).serialize(cluster))
    busy = YarnLoad(pending_mib=2500, allocated_mib=2000, applications=1)
    very_busy = YarnLoad(pending_mib=99_000, allocated_mib=2000, applications=1)
    assert target(pb, rule, busy) == (2, 3)
    assert target(pb, rule, very_busy) == (2, 4)
    idle = YarnLoad(pending_mib=0, allocated_mib=0, applications=0)
    assert target(pb, rule, idle) == (2, 0)
    rule.worker_config.max_instances = 5
    assert (target(pb, rule, busy), target(pb, rule, very_busy)) == ((2, 3), (5, 4))
    rule.ClearField("secondary_worker_config")
    assert target(pb, rule, busy) == target(pb, rule, very_busy) == (5, 0)
    pb.config.worker_config.num_instances = 5
    name_instances(pb)
    assert target(pb, rule, idle) == (2, 0)


class Busy(NoMachines):
    """YARN is asked for more than it has."""

    def load(self, cluster: MachineCluster) -> YarnLoad:
        return YarnLoad(pending_mib=1 << 30, allocated_mib=0, applications=1)


def test_a_cluster_grows_as_its_policy_allows(tmp_path: Path) -> None:
    """Also where that is by primary workers alone."""
    objects = Objects(tmp_path)
    world = World(folder=tmp_path, machines=Busy(tmp_path, objects), objects=objects)
    world.settings.autoscale = 0.01
    grows = policy(id="", worker_config={"min_instances": 2, "max_instances": 5})
    del grows["secondary_worker_config"], grows["id"]
    name = f"{PARENT}/autoscalingPolicies/pol"
    world.policies[PROJECT, REGION, "pol"] = AutoscalingPolicy.pb(AutoscalingPolicy(grows))
    config = {**WORKERS, "autoscaling_config": {"policy_uri": name}}
    request = CreateClusterRequest({**WHERE, "cluster": {"cluster_name": "c", "config": config}})
    Clusters(world).create(CreateClusterRequest.pb(request))
    threading.Thread(target=watch, args=(world,), daemon=True).start()
    entry = world.clusters[PROJECT, REGION, "c"]
    try:
        until(lambda: (entry.state, len(entry.pb.config.worker_config.instance_names)) == (State.RUNNING, 5))
    finally:
        world.closing.set()
    assert not entry.pb.config.HasField("secondary_worker_config")
