"""`NodeMachines`: clusters of real nodes behind the emulator's border (machines.py of the parent package)."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from scripts.hadoop import jars
from tests.emulators.dataproc.machines import FaultKind, MachineCluster, MachineJob, MachineNode, YarnLoad
from tests.emulators.dataproc.nodes import hadoop, jobs
from tests.emulators.dataproc.nodes.cluster import Cluster
from tests.emulators.dataproc.nodes.options import Options
from tests.emulators.dataproc.objects import Objects

_TOOLS = ("unshare", "nsenter", "ip", "mount", "umount", "pivot_root", "setsid", "tar", "curl", "bash")


def missing(image: str = "2.2") -> str | None:
    """What this machine lacks for clusters of real nodes, as a sentence; None when it has everything."""
    if os.geteuid() != 0:
        return "Nodes are Linux namespaces with an overlay root: only root may make them."
    tools = [tool for tool in _TOOLS if not shutil.which(tool)]
    if tools:
        return f"Nodes need {', '.join(tools)} (packages util-linux, iproute2, tar, curl, bash)."
    return jars.missing(hadoop.version(image))


class NodeMachines:
    """`folder` holds each cluster's logs while it lives: `clusters/<uuid>/<node>-<daemon or init-n>.log`."""

    def __init__(self, folder: Path, objects: Objects, options: Options | None = None) -> None:
        self._folder, self._objects, self._options = folder, objects, options or Options()
        self._lock = threading.Lock()
        self._clusters: dict[str, Cluster] = {}

    def start(self, cluster: MachineCluster, nodes: Sequence[MachineNode], cancelled: threading.Event) -> None:
        folder = self._folder / "clusters" / cluster.uuid
        with self._lock:
            made = self._clusters[cluster.uuid] = Cluster(cluster, folder, self._objects, self._options)
        made.start(nodes, cancelled)

    def add(self, cluster: MachineCluster, nodes: Sequence[MachineNode]) -> None:
        if nodes:
            self.cluster(cluster).add(nodes)

    def remove(self, cluster: MachineCluster, names: Sequence[str], graceful_seconds: float) -> None:
        self.cluster(cluster).remove(names, graceful_seconds)

    def run(self, cluster: MachineCluster, job: MachineJob, output: Path, cancelled: threading.Event) -> int:
        return jobs.run(self.cluster(cluster), job, output, cancelled)

    def stop(self, cluster: MachineCluster) -> None:
        with self._lock:
            found = self._clusters.pop(cluster.uuid, None)
        if found is not None:
            found.end()
            shutil.rmtree(found.folder, ignore_errors=True)

    def fault(self, cluster: MachineCluster, node: str, kind: FaultKind) -> None:
        found = self.cluster(cluster)
        if node not in found.machines:
            raise KeyError(node)
        if kind == "preempt":
            found.preempt(node)
        elif kind == "lose":
            found.lose(node)
        else:
            found.cut(node, kind == "cut")

    def load(self, cluster: MachineCluster) -> YarnLoad | None:
        found = self._clusters.get(cluster.uuid)
        return found.services.load() if found is not None and found.services is not None else None

    def close(self) -> None:
        with self._lock:
            left, self._clusters = list(self._clusters.values()), {}
        for found in left:
            found.end()
            shutil.rmtree(found.folder, ignore_errors=True)

    def booted(self, cluster: MachineCluster) -> set[str]:
        """Names of the nodes that are there; none of a cluster that is gone."""
        with self._lock:
            found = self._clusters.get(cluster.uuid)
        return set(found.machines) if found is not None else set()

    def cluster(self, cluster: MachineCluster) -> Cluster:
        """OSError where it is gone."""
        with self._lock:
            found = self._clusters.get(cluster.uuid)
        if found is None:
            raise OSError(f"cluster {cluster.name} is gone")
        return found
