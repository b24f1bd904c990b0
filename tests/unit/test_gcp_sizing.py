"""Machines for workers: YARN's own placement, simulated, must find room for all of them and the application master."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.contract import WorkersPlan
from mayfly.contract.nodes import GcpPlan, NodeGroup, NodesPlan
from mayfly.errors import PlanError
from mayfly.gcp.machines import FAMILIES, GIB, MACHINES
from mayfly.gcp.sizing import MASTER_CORES, MASTER_MIB, MIB, STEP_MIB, Layout, container_mib, plan_nodes, yarn_mib
from tests.emulators.dataproc import catalogue

GB = 10**9
GCP = GcpPlan(project="acme-data", region="europe-west3")
BY_NAME = {machine.name: machine for machine in MACHINES}


def workers(count: int, cores: int, memory: float, *, minimum: int | None = None) -> WorkersPlan:
    least = count if minimum is None else minimum
    return WorkersPlan(minimum=least, maximum=count, cores=cores, memory=int(memory))


def nodes_of(plan: NodesPlan) -> list[NodeGroup]:
    """Each NodeManager of the cluster at its largest, the primary ones first."""
    groups = [group for group in (plan.primary, plan.secondary) if group is not None]
    return [group for group in groups for _ in range(group.maximum)]


def place(plan: NodesPlan, asked: WorkersPlan, rng: random.Random) -> list[int]:
    """Workers on each node as YARN's scheduler would put them: nodes report in any order, and whoever reports gets as
    much as fits. The application master is there first, on any primary node."""
    nodes = nodes_of(plan)
    assert plan.primary is not None
    free = [[node.yarn_mib, node.yarn_cores] for node in nodes]
    first = rng.randrange(plan.primary.maximum)
    free[first][0] -= MASTER_MIB
    free[first][1] -= MASTER_CORES
    assert min(free[first]) >= 0
    placed, left = [0] * len(nodes), asked.maximum
    size = -(-asked.memory // MIB)
    charged = -(-size // STEP_MIB) * STEP_MIB
    for node in rng.sample(range(len(nodes)), len(nodes)):
        while left and free[node][0] >= charged and free[node][1] >= asked.cores:
            free[node][0] -= charged
            free[node][1] -= asked.cores
            placed[node] += 1
            left -= 1
    assert not left, f"{left} of {asked.maximum} workers found no room"
    return placed


SIZES = st.builds(
    workers,
    st.integers(1, 200),
    st.integers(1, 64),
    st.integers(384 * MIB, 400 * GIB),
)
TARGETS = st.builds(
    lambda family, secondary, primary, ssds: replace(
        GCP, families=(family, "n2"), secondary=secondary, primary=primary, local_ssds=ssds
    ),
    st.sampled_from(FAMILIES),
    st.sampled_from(("", "spot", "on-demand")),
    st.integers(2, 5),
    st.sampled_from((0, 1, 3)),
)


@settings(max_examples=300, deadline=None)
@given(SIZES, TARGETS, st.integers(0, 10**6))
def test_all_workers_and_the_application_master_find_room(asked: WorkersPlan, gcp: GcpPlan, seed: int) -> None:
    plan, _ = plan_nodes(asked, gcp=gcp, launcher="yarn", script_memory=None)
    placed = place(plan, asked, random.Random(seed))
    for node, count in zip(nodes_of(plan), placed, strict=True):
        assert count * asked.cores <= node.cores, "workers share cores"
        assert node.yarn_mib * MIB < node.memory, "nothing is left for the system"
    machine = BY_NAME[nodes_of(plan)[0].machine]
    assert nodes_of(plan)[0].local_ssds in (*machine.local_ssds, 0)
    assert nodes_of(plan)[0].local_ssds >= gcp.local_ssds


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MACHINES), st.integers(1, 16), st.integers(1, 300), st.data())
def test_the_count_of_nodes_is_the_least_on_every_machine_type(
    machine: object, cores: int, count: int, data: st.DataObject
) -> None:
    machine = BY_NAME[machine.name]  # type: ignore[attr-defined]
    most = yarn_mib(machine)
    if cores > machine.cores or most < 512:
        return
    memory = data.draw(st.integers(384, most)) * MIB
    layout = Layout(machine=machine, worker_mib=container_mib(memory), worker_cores=cores)
    nodes = layout.nodes(count)
    assert layout.holds(nodes) >= count
    assert nodes == 2 or layout.holds(nodes - 1) < count


def test_what_the_system_needs_is_not_sold_to_yarn() -> None:
    plan, notes = plan_nodes(workers(2, 4, 14 * GB), gcp=GCP, launcher="yarn", script_memory=None)
    assert plan.primary is not None
    assert plan.primary.machine == "n2-highmem-4"
    assert notes == (
        "a worker of 14 GB does not fit on n2-standard-4: of its 16 GiB YARN gets 13 GiB; n2-highmem-4 is taken",
    )


def test_the_application_master_may_cost_a_node_and_then_it_is_said() -> None:
    asked = workers(4, 2, 6656 * MIB)  # of 13 GiB two take all: beside the application master there is room for one
    plan, notes = plan_nodes(asked, gcp=replace(GCP, families=("c2",)), launcher="yarn", script_memory=None)
    assert plan.primary is not None
    assert (plan.primary.machine, plan.primary.count) == ("c2-standard-4", 3)
    assert notes == ("the application master takes the room of a worker: 3 x c2-standard-4 instead of 2",)
    place(plan, asked, random.Random(1))


def test_secondary_workers_and_a_master_that_is_never_one_of_them() -> None:
    gcp = replace(GCP, secondary="spot", primary=2)
    plan, _ = plan_nodes(workers(40, 4, 14 * GB), gcp=gcp, launcher="yarn", script_memory=None)
    assert plan.primary is not None and plan.secondary is not None
    assert (plan.primary.count, plan.primary.pricing, plan.secondary.pricing) == (2, "on-demand", "spot")
    assert (plan.master.pricing, plan.master.yarn_mib, plan.autoscaling) == ("on-demand", 0, False)
    assert plan.primary.machine == plan.secondary.machine


@pytest.mark.parametrize("secondary", ["", "spot"])
def test_adaptive_clusters_grow_between_what_fewest_and_most_need(secondary: str) -> None:
    gcp = replace(GCP, secondary=secondary)
    asked = workers(20, 2, 8 * GB, minimum=1)
    plan, _ = plan_nodes(asked, gcp=gcp, launcher="yarn", script_memory=None)
    place(plan, asked, random.Random(1))
    growing = plan.secondary if secondary else plan.primary
    assert plan.autoscaling and growing is not None
    assert growing.count < growing.maximum
    fixed, notes = plan_nodes(asked, gcp=replace(gcp, autoscaling=False), launcher="yarn", script_memory=None)
    assert not fixed.autoscaling and all(group.count == group.maximum for group in nodes_of(fixed))
    assert any("autoscaling is off" in note for note in notes)


def test_the_master_grows_with_the_script() -> None:
    small, _ = plan_nodes(workers(2, 1, 4 * GB), gcp=GCP, launcher="yarn", script_memory=None)
    large, _ = plan_nodes(workers(2, 1, 4 * GB), gcp=GCP, launcher="yarn", script_memory=100 * GB)
    assert (small.master.machine, large.master.machine) == ("n2-standard-4", "n2-highmem-16")
    with pytest.raises(PlanError, match=r"master needs .* Lower script_memory"):
        plan_nodes(workers(2, 1, 4 * GB), gcp=GCP, launcher="yarn", script_memory=1000 * GB)


def test_one_machine_for_the_launcher_processes() -> None:
    plan, _ = plan_nodes(workers(2, 2, 4 * GB), gcp=GCP, launcher="processes", script_memory=None)
    assert (plan.primary, plan.secondary, plan.autoscaling) == (None, None, False)
    assert plan.master.cores >= 4 and plan.master.memory > 2 * 4 * GB + 8 * GIB
    with pytest.raises(PlanError, match=r"need one machine with 600 cores .*`launcher: yarn`"):
        plan_nodes(workers(300, 2, 4 * GB), gcp=GCP, launcher="processes", script_memory=None)


@pytest.mark.parametrize(
    ("asked", "gcp", "words"),
    [
        (workers(1, 8, 2000 * GB), GCP, r"largest worker of 8 cores that fits has 869\.7 GB, on n2-highmem-128"),
        (workers(1, 200, 4 * GB), GCP, r"the most cores is n2-\w+-128 \(128\); lower cluster\.worker\.cores"),
        (
            workers(1, 1, 4 * GB),
            replace(GCP, families=("e2",), local_ssds=1),
            r"no machine type of e2 can have 1 local",
        ),
    ],
)
def test_what_fits_nowhere_is_refused_with_the_largest_that_does(asked: WorkersPlan, gcp: GcpPlan, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        plan_nodes(asked, gcp=gcp, launcher="yarn", script_memory=None)


def test_the_emulator_knows_the_same_machines() -> None:
    assert [(m.cores, m.memory) for m in MACHINES] == [catalogue.machine(machine.name) for machine in MACHINES]
