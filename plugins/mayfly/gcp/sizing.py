"""From the job's workers to machines: which, how many, and the proof that everything fits. Pure.

YARN gives containers by memory and cores, whole multiples of the smallest allocation. Workers of a job are all of one
size, so that the packing is simple: a node holds `slots` of them, the node with the application master maybe fewer, and
every order in which YARN may place them ends with the same sum. `Layout.holds` is that sum; a property test compares it
with a simulation of YARN's own placement, over all machine types.

Memory of machines is in bytes, of YARN in MiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mayfly.contract import WorkersPlan
from mayfly.contract.nodes import GcpPlan, NodeGroup, NodesPlan
from mayfly.errors import PlanError
from mayfly.gcp.machines import GIB, Machine, of_families
from mayfly.units import format_size

MIB = 1 << 20
STEP_MIB = 256
"""Smallest allocation and increment that clusters are made with."""
MASTER_MIB, MASTER_CORES = 512, 1
"""The application master that the launcher `yarn` asks for."""
FEWEST_PRIMARY = 2
"""Dataproc makes no cluster with one worker node (documented)."""
SCRIPT = 2 * GIB
"""What a script is given room for where its job does not say `script_memory`."""
_SYSTEM, _SYSTEM_SHARE = 2 * GIB, 0.06
"""Of a node: operating system, agents, DataNode and NodeManager. More on larger nodes: page tables and their caches."""
_JAVA = 3 * GIB + GIB // 2
"""On a master: NameNode, ResourceManager and history servers (about 1 GiB each), the JVM beside the job's driver."""
_SCHEDULER, _SCHEDULER_PER_WORKER = GIB, 10 * MIB
"""Dask's scheduler with its dashboard and task stream."""
_CORES_OF_MASTER = 4
"""Scheduler, script, and Java's two daemons."""
_SPOT = 0.41
"""What a spot node costs of an on-demand one, with Dataproc's fee (n2-standard-4, us-central1)."""
_IDLE_YARN_MIB = 1024
"""What a single machine's NodeManager offers when nothing of ours runs on YARN."""


def reserve(machine: Machine) -> int:
    """Bytes of a node that are not for containers: 2 GiB and 6 % of its memory. 13 of 16 GiB are left, 28.1 of 32."""
    return _SYSTEM + int(machine.memory * _SYSTEM_SHARE)


def yarn_mib(machine: Machine) -> int:
    """What its NodeManager offers, a whole multiple of `STEP_MIB`."""
    return max(0, machine.memory - reserve(machine)) // MIB // STEP_MIB * STEP_MIB


def container_mib(memory: int) -> int:
    """What YARN charges for a container of so many bytes."""
    return -(-memory // (STEP_MIB * MIB)) * STEP_MIB


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Nodes of one type and what fits on them."""

    machine: Machine
    worker_mib: int
    worker_cores: int

    @property
    def slots(self) -> int:
        """Workers on a node: none shares a core with another."""
        return min(yarn_mib(self.machine) // self.worker_mib, self.machine.cores // self.worker_cores)

    @property
    def cores(self) -> int:
        """What the NodeManager offers: the workers' cores, and one for the application master, which sleeps nearly all
        of the time and should not cost a worker its place. Not where YARN could put a further worker there."""
        used, one_more = self.slots * self.worker_cores, (self.slots + 1) * self.worker_cores
        fits_one_more = used + MASTER_CORES >= one_more and (self.slots + 1) * self.worker_mib <= yarn_mib(self.machine)
        return used if fits_one_more else used + MASTER_CORES

    @property
    def slots_beside_master(self) -> int:
        """Workers on the node that also has the application master."""
        memory = (yarn_mib(self.machine) - MASTER_MIB) // self.worker_mib
        return max(0, min(memory, (self.cores - MASTER_CORES) // self.worker_cores))

    def holds(self, nodes: int) -> int:
        """Workers that so many nodes hold beside the application master."""
        return self.slots_beside_master + (nodes - 1) * self.slots if nodes else 0

    def nodes(self, workers: int) -> int:
        """The fewest nodes that hold so many workers and the application master, at least `FEWEST_PRIMARY`."""
        return max(FEWEST_PRIMARY, 1 + -(-max(0, workers - self.slots_beside_master) // self.slots))


def plan_nodes(
    workers: WorkersPlan, *, gcp: GcpPlan, launcher: str, script_memory: int | None
) -> tuple[NodesPlan, tuple[str, ...]]:
    """The machines for these workers, and what people should know about the choice. PlanError when nothing fits."""
    if launcher != "yarn":
        return _one_machine(workers, gcp=gcp, script_memory=script_memory)
    layout = _choose(workers, gcp)
    notes = [*_notes(layout, workers, gcp)]
    grows = workers.adaptive and gcp.autoscaling
    fewest, most = layout.nodes(workers.minimum if grows else workers.maximum), layout.nodes(workers.maximum)
    grows = grows and most > fewest
    group, more = _group(layout, gcp)
    primary = replace(group, count=fewest, maximum=most)
    secondary = None
    if gcp.secondary and most > gcp.primary:
        first = min(fewest, gcp.primary) if not grows else gcp.primary
        primary = replace(group, count=first, maximum=first)
        secondary = replace(group, count=max(0, fewest - first), maximum=most - first, pricing=gcp.secondary)
        grows = grows and secondary.maximum > secondary.count
    master = _master(workers.maximum, gcp=gcp, script_memory=script_memory)
    return NodesPlan(master=master, primary=primary, secondary=secondary, autoscaling=grows), (*notes, *more)


def _choose(workers: WorkersPlan, gcp: GcpPlan) -> Layout:
    """The cheapest type of the first family that holds a worker; at equal cost the one with fewer nodes. Where the
    cluster grows, half of the cost is that of its smallest size: large machines cannot follow a small load."""
    sizes = (workers.minimum, workers.maximum) if workers.adaptive and gcp.autoscaling else (workers.maximum,)

    def cost(layout: Layout) -> tuple[float, int, str]:
        counts = [layout.nodes(size) for size in sizes]
        return sum(_paid(count, gcp) for count in counts) * layout.machine.weight, counts[-1], layout.machine.name

    for family in of_families(gcp.families):
        fitting = [layout for layout in _layouts(workers, family) if _ssds(layout.machine, gcp.local_ssds) is not None]
        if fitting:
            return min(fitting, key=cost)
    raise PlanError(_too_large(workers, gcp))


def _paid(nodes: int, gcp: GcpPlan) -> float:
    """So many nodes, as many on-demand ones as cost the same."""
    if gcp.secondary not in ("spot", "preemptible"):
        return nodes
    return min(nodes, gcp.primary) + max(0, nodes - gcp.primary) * _SPOT


def _layouts(workers: WorkersPlan, machines: tuple[Machine, ...]) -> Iterator[Layout]:
    for machine in machines:
        layout = Layout(machine=machine, worker_mib=container_mib(workers.memory), worker_cores=workers.cores)
        if layout.slots:
            yield layout


def _too_large(workers: WorkersPlan, gcp: GcpPlan) -> str:
    every = [machine for family in of_families(gcp.families) for machine in family]
    machines = [machine for machine in every if _ssds(machine, gcp.local_ssds) is not None]
    families = ", ".join(gcp.families)
    if not machines:
        return (
            f"no machine type of {families} can have {gcp.local_ssds} local SSDs (gcp.local_ssds); n2, n2d and n1 can"
        )
    roomy = [machine for machine in machines if machine.cores >= workers.cores]
    asked = f"a worker of {workers.cores} cores and {format_size(workers.memory)} fits on no machine type of {families}"
    if not roomy:
        most = max(machines, key=lambda machine: machine.cores)
        return f"{asked}: the one with the most cores is {most.name} ({most.cores}); lower cluster.worker.cores"
    largest = max(roomy, key=lambda machine: (yarn_mib(machine), -machine.cores))
    return (
        f"{asked}: the largest worker of {workers.cores} cores that fits has {yarn_mib(largest) * MIB / 1e9:.1f} GB, "
        f"on {largest.name} ({_gib(largest.memory)}, less what the system needs); lower cluster.worker.memory, or "
        "allow more families (gcp.families of the target)"
    )


def _notes(layout: Layout, workers: WorkersPlan, gcp: GcpPlan) -> Iterator[str]:
    """Where the machines are not what one would count in one's head, and why."""
    machine, family = layout.machine, of_families((layout.machine.family,))[0]
    plain = [m for m in family if m.memory // workers.memory and m.cores >= workers.cores]
    tight = min(plain, key=lambda m: (m.weight, m.name), default=machine)
    if yarn_mib(tight) < layout.worker_mib and layout.slots == 1:
        yield (
            f"a worker of {format_size(workers.memory)} does not fit on {tight.name}: of its {_gib(tight.memory)} YARN "
            f"gets {_gib(yarn_mib(tight) * MIB)}; {machine.name} is taken"
        )
    nodes = layout.nodes(workers.maximum)
    without = max(FEWEST_PRIMARY, -(-workers.maximum // layout.slots))
    if nodes > without:
        yield f"the application master takes the room of a worker: {nodes} x {machine.name} instead of {without}"
    if nodes == FEWEST_PRIMARY > -(-workers.maximum // layout.slots) and workers.maximum:
        yield f"Dataproc makes no cluster with fewer than {FEWEST_PRIMARY} worker nodes"
    if workers.adaptive and not gcp.autoscaling:
        yield f"gcp.autoscaling is off: all {nodes} nodes for {workers.maximum} workers are there from the start"


def _group(layout: Layout, gcp: GcpPlan) -> tuple[NodeGroup, tuple[str, ...]]:
    """One node of the layout as the plan says it, with the notes on its disks."""
    ssds, notes = _ssds_of(layout.machine, gcp.local_ssds)
    group = NodeGroup(
        machine=layout.machine.name,
        count=0,
        maximum=0,
        cores=layout.machine.cores,
        memory=layout.machine.memory,
        yarn_mib=yarn_mib(layout.machine),
        yarn_cores=layout.cores,
        disk_gb=gcp.disk_gb,
        local_ssds=ssds,
    )
    return group, notes


def _ssds(machine: Machine, asked: int) -> int | None:
    """The fewest local SSDs that are allowed and enough; None when the type cannot have so many."""
    return 0 if not asked else next((count for count in machine.local_ssds if count >= asked), None)


def _ssds_of(machine: Machine, asked: int) -> tuple[int, tuple[str, ...]]:
    count = _ssds(machine, asked) or 0
    if count == asked:
        return count, ()
    return count, (f"{machine.name} has {count} local SSDs or more, not {asked}: {count} are taken",)


def _needs(workers: int, script_memory: int | None) -> int:
    """Bytes that a master needs for all but workers."""
    return _JAVA + _SCHEDULER + workers * _SCHEDULER_PER_WORKER + (script_memory or SCRIPT)


def _master(workers: int, *, gcp: GcpPlan, script_memory: int | None) -> NodeGroup:
    """The smallest machine with room for script, scheduler and Java; on demand, whatever the workers are."""
    need = _needs(workers, script_memory)
    for family in of_families(gcp.families):
        for machine in family:
            if machine.cores >= _CORES_OF_MASTER and machine.memory - reserve(machine) >= need:
                return _alone(machine, gcp, ssds=0)
    raise PlanError(
        f"the master needs {format_size(need)} for the script ({format_size(script_memory or SCRIPT)}), Dask's "
        f"scheduler and Hadoop's own processes; no machine type of {', '.join(gcp.families)} has so much. Lower "
        "script_memory, or allow more families (gcp.families of the target)"
    )


def _one_machine(workers: WorkersPlan, *, gcp: GcpPlan, script_memory: int | None) -> tuple[NodesPlan, tuple[str, ...]]:
    """A cluster of one: all workers are processes beside the driver. They get real cores and all of their memory."""
    count, need = workers.maximum, _needs(workers.maximum, script_memory)
    cores, memory = count * workers.cores, count * workers.memory + need + _IDLE_YARN_MIB * MIB
    families = of_families(gcp.families)
    for family in families:
        for machine in family:
            if machine.cores < max(cores, 2) or machine.memory - reserve(machine) < memory:
                continue
            if _ssds(machine, gcp.local_ssds) is None:
                continue
            ssds, notes = _ssds_of(machine, gcp.local_ssds)
            master = replace(_alone(machine, gcp, ssds=ssds), yarn_mib=_IDLE_YARN_MIB, yarn_cores=1)
            return NodesPlan(master=master), notes
    most = max((machine for family in families for machine in family), key=lambda m: (m.memory, m.cores))
    raise PlanError(
        f"{count} workers of {workers.cores} cores and {format_size(workers.memory)} need one machine with {cores} "
        f"cores and {format_size(memory)} (launcher processes: all of them on the master, beside the script); the "
        f"largest of {', '.join(gcp.families)} is {most.name} ({most.cores} cores, {_gib(most.memory)}). Use a target "
        "with `launcher: yarn`, or fewer or smaller workers"
    )


def _alone(machine: Machine, gcp: GcpPlan, *, ssds: int) -> NodeGroup:
    return NodeGroup(
        machine=machine.name,
        count=1,
        maximum=1,
        cores=machine.cores,
        memory=machine.memory,
        disk_gb=gcp.disk_gb,
        local_ssds=ssds,
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.3g} GiB"
