"""One cluster of nodes: boot, init actions, services, faults, end. machines.py holds all of them."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from scripts.hadoop import jars
from tests.emulators.dataproc.machines import MachineCluster, MachineNode, NodeFailed
from tests.emulators.dataproc.nodes import hadoop, initactions, metadata
from tests.emulators.dataproc.nodes.machine import Machine, instance
from tests.emulators.dataproc.nodes.namespaces import GATEWAY, METADATA, Bind, Entry, Farm
from tests.emulators.dataproc.nodes.network import FarmError
from tests.emulators.dataproc.nodes.nfs import SERVER, Door, Mounts
from tests.emulators.dataproc.nodes.options import Options
from tests.emulators.dataproc.nodes.relay import Relay
from tests.emulators.dataproc.nodes.services import ServiceFailed, Services
from tests.emulators.dataproc.objects import Objects


class Cluster:
    """Made at once, booted by start(). All methods may come from several threads."""

    def __init__(self, cluster: MachineCluster, folder: Path, objects: Objects, options: Options) -> None:
        self.cluster, self.folder, self.objects, self.options = cluster, folder, objects, options
        self.folder.mkdir(parents=True, exist_ok=True)
        self.machines: dict[str, Machine] = {}
        self.ended = threading.Event()
        self.services: Services | None = None
        self._lock = threading.RLock()
        self._hosts: list[tuple[str, str, str]] = []
        self._hosts_file = self.folder / "hosts"
        self._hosts_file.write_text("")
        self._farm = Farm()
        self._metadata = metadata.MetadataServer(self._farm.listen(METADATA, 80))
        self._door = Door(self._farm) if options.exports else None

    # ------------------------------------------------------------ what there is

    def master(self) -> Machine:
        return next(machine for machine in self.machines.values() if machine.spec.role == "master")

    def states(self) -> dict[str, str]:
        """Of its nodes in YARN, by name."""
        return self.services.states() if self.services is not None else {}

    # ------------------------------------------------------------ boot

    def start(self, nodes: Sequence[MachineNode], cancelled: threading.Event) -> None:
        master = next(node for node in nodes if node.role == "master")
        workers = [node for node in nodes if node.role != "master"]
        layout = hadoop.Layout(
            cluster=self.cluster,
            master=metadata.hostname(self.cluster, master.name),
            single=not workers,
            workers=len([node for node in workers if node.role == "worker"]),
            largest=(max(n.yarn_mib for n in nodes), max(n.yarn_cores for n in nodes)),
            java_home=jars.java_home(),
            environment=self.options.variables,
        )
        self._announce(nodes)
        with self._failures(master.name):
            first = self._boot(master, layout, len(workers))
        self.services = Services(layout, first.node, self.folder)
        self._each(nodes, lambda node: self._bring_up(node, layout, len(workers), cancelled))
        with self._failures(master.name):
            self.services.await_master(cancelled, self.options.ready_seconds)
            self._settle(nodes, cancelled)
            self.services.await_blocks(
                len([n for n in nodes if "datanode" in layout.daemons(n)]), cancelled, self.options.ready_seconds
            )
        if initactions.after_services(self.cluster, "master"):
            self._init(self.machines[master.name], cancelled)

    def add(self, nodes: Sequence[MachineNode]) -> None:
        assert self.services is not None
        layout = self.services.layout
        with self._failures(nodes[0].name):
            self.services.readmit(node.name for node in nodes)
        self._announce(nodes)
        self._each(nodes, lambda node: self._bring_up(node, layout, layout.workers, self.ended))
        with self._failures(nodes[0].name):
            self._settle(nodes, self.ended)

    def _settle(self, nodes: Sequence[MachineNode], cancelled: threading.Event) -> None:
        assert self.services is not None
        self.services.label(metadata.hostname(self.cluster, node.name) for node in nodes if node.role == "secondary")
        wanted = [node.name for node in nodes if "nodemanager" in self.services.layout.daemons(node)]
        self.services.await_nodes(wanted, cancelled, self.options.ready_seconds)
        for node in nodes:
            if node.role != "master" and initactions.after_services(self.cluster, "worker"):
                self._init(self.machines[node.name], cancelled)

    def _announce(self, nodes: Sequence[MachineNode]) -> None:
        """Everybody knows everybody by name, before anybody looks: /etc/hosts is one file for all."""
        with self._lock:
            known = {name for _, _, name in self._hosts}
            for node in nodes:
                if node.name not in known:
                    self._hosts.append((self._farm.address(), metadata.hostname(self.cluster, node.name), node.name))
            server = [(GATEWAY, metadata.hostname(self.cluster, SERVER), SERVER)] if self.options.exports else []
            self._hosts_file.write_text(hadoop.host_lines([*server, *self._hosts]))

    def _each(self, nodes: Sequence[MachineNode], act: Callable[[MachineNode], None]) -> None:
        """For all at once; one NodeFailed for all that failed."""
        failed: list[NodeFailed] = []

        def guarded(node: MachineNode) -> None:
            try:
                with self._failures(node.name):
                    act(node)
            except NodeFailed as error:
                failed.append(error)

        with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
            list(pool.map(guarded, nodes))
        if failed:
            first, *others = failed
            raise NodeFailed(first.node, first.message, first.output_uri, others)

    @contextmanager
    def _failures(self, name: str) -> Iterator[None]:
        try:
            yield
        except ServiceFailed as error:
            raise NodeFailed(error.node, error.message) from error
        except (FarmError, subprocess.SubprocessError, jars.HadoopError) as error:
            raise NodeFailed(name, f"{type(error).__name__}: {error}") from error

    def _boot(self, spec: MachineNode, layout: hadoop.Layout, workers: int) -> Machine:
        with self._lock:
            if spec.name in self.machines:
                return self.machines[spec.name]
            address = next(address for address, _, name in self._hosts if name == spec.name)
        binds = [Bind(source=self._hosts_file, target="/etc/hosts"), *layout.binds(), *self.options.binds]
        if any(layout.java_home.is_relative_to(folder) for folder in self.options.hidden):
            binds.append(Bind(source=layout.java_home, target=str(layout.java_home)))
        if spec.role == "master" and self.options.spark:
            binds.append(Bind(source=self.options.spark, target="/usr/lib/spark"))
        node = self._farm.node(spec.name, address, binds=binds, hidden=self.options.hidden)
        machine = Machine(spec, node, [])
        with self._lock:
            if self.ended.is_set():
                node.kill()
                raise FarmError("the cluster is gone")
            self.machines[spec.name] = machine
            for port in self.options.relayed:
                machine.relays.append(Relay(node.listen("127.0.0.1", port), ("127.0.0.1", port)))
            if self.options.exports:
                exports = {export: Path(folder) for export, folder in self.options.exports.items()}
                machine.mounts = Mounts(self._farm, node, exports)
            self._metadata.add(instance(spec, address, layout, workers))
        return machine

    def _bring_up(self, spec: MachineNode, layout: hadoop.Layout, workers: int, cancelled: threading.Event) -> None:
        machine = self._boot(spec, layout, workers)
        assert self.services is not None
        self.services.install(machine.node, spec)
        machine.node.put({"/usr/share/google/get_metadata_value": Entry(content=metadata.SHIM, mode=0o755)})
        if not initactions.after_services(self.cluster, "master" if spec.role == "master" else "worker"):
            self._init(machine, cancelled)
        if cancelled.is_set():
            raise FarmError("cancelled")
        self.services.start(machine.node, spec)

    def _init(self, machine: Machine, cancelled: threading.Event) -> None:
        initactions.run(self.cluster, machine.node, self.objects, self.folder, self.options.variables, cancelled)

    # ------------------------------------------------------------ faults and ends

    def remove(self, names: Sequence[str], graceful_seconds: float) -> None:
        present = [name for name in names if name in self.machines]
        if present and self.services is not None:
            try:
                self.services.decommission(present, graceful_seconds)
            except OSError:  # no ResourceManager to ask: they go all the same
                pass
        for name in present:
            self.lose(name)

    def lose(self, name: str) -> None:
        """Gone at once. Unknown names: done."""
        with self._lock:
            machine = self.machines.pop(name, None)
        if machine is None:
            return
        self._close(machine)
        self._metadata.remove(machine.node.address)

    def _close(self, machine: Machine) -> None:
        daemons = self.services.forget(machine.spec.name) if self.services is not None else []
        machine.close()
        for daemon in daemons:
            daemon.wait(240)

    def preempt(self, name: str) -> None:
        """The notice; whoever gives it loses the node."""
        machine = self.machines[name]
        self._metadata.preempt(machine.node.address)
        if self.options.soft_off and self.services is not None:
            self.services.ask_to_end(name)

    def cut(self, name: str, cut: bool) -> None:
        machine = self.machines[name]
        self._farm.link(machine.node, not cut)
        machine.hold(cut)

    def end(self) -> None:
        """Everything is gone when it returns. Idempotent."""
        self.ended.set()
        with self._lock:
            machines, self.machines = list(self.machines.values()), {}
        self._farm.end()
        for machine in machines:
            self._close(machine)
        self._metadata.close()
        if self._door is not None:
            self._door.close()
