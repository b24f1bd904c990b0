"""The border between the API and the machines that clusters are made of.

The server decides (names, states, errors, faults by rule) and calls; machines boot, run and vanish. `NoMachines` is the
smallest: a cluster is a folder, a PySpark job is its main Python file run as a process of this host. The other
implementation makes real nodes.

Threads: `start`, `add`, `remove`, `stop` of one cluster come from one thread at a time, except that `stop` may come
while `start`, `add`, `remove` or `run` of that cluster are under way: these then end soon, by whatever exception.
`run` comes from a thread of each job. `fault` and `load` may come at any time. Different clusters are independent.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from tests.emulators.dataproc.objects import Objects

Role = Literal["master", "worker", "secondary"]
FaultKind = Literal["preempt", "lose", "cut", "heal"]
"""preempt: notice (metadata `instance/preempted` = TRUE), and no more: the server loses it when its time is over;
lose: gone at once; cut: no network; heal: the network is back."""

_CANCEL_SECONDS = 20.0
"""From SIGTERM to SIGKILL of a cancelled job's main process."""


@dataclass(frozen=True, kw_only=True)
class MachineCluster:
    """What machines need to know of their cluster. `metadata` is as the user gave it: the given keys (`dataproc-role`,
    `dataproc-master`, `dataproc-worker-count`, ...) are added by the machines, per node."""

    name: str
    uuid: str
    project: str
    region: str
    image: str
    """Resolved, such as "2.2"."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    """`prefix:key` -> value, as in SoftwareConfig."""
    init_actions: Sequence[tuple[str, float]] = ()
    """(URI, time limit in seconds), run in this order on every node."""
    staging_bucket: str = ""
    """Without gs://."""

    @property
    def metainfo(self) -> str:
        return f"gs://{self.staging_bucket}/google-cloud-dataproc-metainfo/{self.uuid}"

    def init_output(self, node: str, index: int) -> str:
        """Where Dataproc puts what the init action of that index wrote on that node."""
        return f"{self.metainfo}/{node}/dataproc-initialization-script-{index}_output"


@dataclass(frozen=True, kw_only=True)
class MachineNode:
    name: str
    role: Role
    cores: int
    memory: int
    """Bytes, of the machine type; not enforced."""
    yarn_mib: int
    """What its NodeManager advertises; 0 = no NodeManager (masters of clusters with workers)."""
    yarn_cores: int
    preemptible: bool = False


@dataclass(frozen=True, kw_only=True)
class MachineJob:
    """A PySpark job. `properties` are Spark's; the interpreter is `spark.pyspark.driver.python`, else
    `spark.pyspark.python`, else the image's own. `env`: variables beyond the node's own."""

    id: str
    main_uri: str
    args: Sequence[str] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class YarnLoad:
    """What the autoscaler and the idle TTL ask YARN."""

    pending_mib: int
    allocated_mib: int
    applications: int
    """Pending or running."""


class NodeFailed(Exception):
    """A node did not come up. `message` without the node's name, such as Google's own sentence on an init action (see
    `init_failed`); `output_uri` where its output is, if anywhere; `others`: further nodes, which failed in the same
    start."""

    def __init__(self, node: str, message: str, output_uri: str = "", others: Sequence[NodeFailed] = ()) -> None:
        super().__init__(node, message, output_uri)
        self.node, self.message, self.output_uri, self.others = node, message, output_uri, tuple(others)


def init_failed(*, action: str, output_uri: str, timed_out: bool = False) -> str:
    """Google's sentence on an init action that failed or took too long."""
    what = "timed out" if timed_out else "failed"
    return f"Initialization action {what}. Failed action '{action}', see output in: {output_uri}"


class Machines(Protocol):
    def start(self, cluster: MachineCluster, nodes: Sequence[MachineNode], cancelled: threading.Event) -> None:
        """Blocks: boots all nodes, runs the init actions on them in parallel (output to `cluster.init_output`), starts
        the services. NodeFailed where a node fails: the others stay (a cluster in ERROR keeps its machines).
        `cancelled` = the cluster is being deleted: end soon; `stop` follows in any case."""

    def add(self, cluster: MachineCluster, nodes: Sequence[MachineNode]) -> None:
        """Blocks: like `start`, for nodes that join a running cluster."""

    def remove(self, cluster: MachineCluster, names: Sequence[str], graceful_seconds: float) -> None:
        """Blocks: decommissions these nodes in YARN for at most that long, then they are gone. Unknown names: done."""

    def run(self, cluster: MachineCluster, job: MachineJob, output: Path, cancelled: threading.Event) -> int:
        """Blocks until the job's main process has ended; returns its exit code, negative = that signal. stdout and
        stderr go to the file `output`, which exists. `cancelled`: SIGTERM, and after a while SIGKILL. OSError (or any
        other exception) when it could not be started."""

    def stop(self, cluster: MachineCluster) -> None:
        """Idempotent: processes, mounts, interfaces and files of the cluster are gone when it returns."""

    def fault(self, cluster: MachineCluster, node: str, kind: FaultKind) -> None:
        """Do this to a node; returns at once. KeyError where there is no such node."""

    def load(self, cluster: MachineCluster) -> YarnLoad | None:
        """What YARN is asked for now; None where there is no YARN, or no answer."""

    def close(self) -> None:
        """The emulator ends: `stop` for all that is left."""


class NoMachines:
    """No nodes at all. Jobs are processes of this host, each below a warden (warden.py) that knows all its descendants,
    whatever sessions they made, and ends them when the cluster is deleted or the emulator is gone."""

    def __init__(self, folder: Path, objects: Objects) -> None:
        self._folder, self._objects = folder, objects
        self._lock = threading.Lock()
        self._wardens: dict[str, list[subprocess.Popen[str]]] = {}
        self._nodes: dict[str, dict[str, MachineNode]] = {}

    def start(self, cluster: MachineCluster, nodes: Sequence[MachineNode], cancelled: threading.Event) -> None:
        self._scratch(cluster).mkdir(parents=True, exist_ok=True)
        self._temporary(cluster).mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._nodes[cluster.uuid] = {node.name: node for node in nodes}
            self._wardens.setdefault(cluster.uuid, [])

    def add(self, cluster: MachineCluster, nodes: Sequence[MachineNode]) -> None:
        with self._lock:
            self._nodes.get(cluster.uuid, {}).update({node.name: node for node in nodes})

    def remove(self, cluster: MachineCluster, names: Sequence[str], graceful_seconds: float) -> None:
        with self._lock:
            for name in names:
                self._nodes.get(cluster.uuid, {}).pop(name, None)

    def run(self, cluster: MachineCluster, job: MachineJob, output: Path, cancelled: threading.Event) -> int:
        folder = self._scratch(cluster) / f"job-{job.id}"
        folder.mkdir(parents=True, exist_ok=True)
        main = folder / (job.main_uri.rsplit("/", 1)[-1] or "main.py")
        main.write_bytes(self._objects.read(job.main_uri))
        python = job.properties.get("spark.pyspark.driver.python") or job.properties.get("spark.pyspark.python")
        command = [python or sys.executable, str(main), *job.args]
        with self._lock:
            if cluster.uuid not in self._wardens:
                raise OSError(f"cluster {cluster.name} is gone")
            with output.open("ab") as sink:
                warden = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(__file__).with_name("warden.py")), json.dumps(command)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=sink,
                    cwd=folder,
                    env=os.environ | {"TMPDIR": str(self._temporary(cluster))} | dict(job.env),
                    start_new_session=True,
                    text=True,
                )
            self._wardens[cluster.uuid].append(warden)
        ended = threading.Event()
        threading.Thread(target=self._pass_on, args=(warden, cancelled, ended), daemon=True).start()
        assert warden.stdout is not None
        try:
            line = warden.stdout.readline()
        except ValueError:
            line = ""
        ended.set()
        if not line:
            raise OSError(f"cluster {cluster.name} is gone")
        return int(line)

    def stop(self, cluster: MachineCluster) -> None:
        with self._lock:
            wardens = self._wardens.pop(cluster.uuid, [])
            self._nodes.pop(cluster.uuid, None)
        self._end(wardens)
        for folder in (self._scratch(cluster), self._temporary(cluster)):
            shutil.rmtree(folder, ignore_errors=True)

    def fault(self, cluster: MachineCluster, node: str, kind: FaultKind) -> None:
        with self._lock:
            found = self._nodes.get(cluster.uuid, {})[node]
            if kind != "lose":
                return
            del self._nodes[cluster.uuid][node]
            wardens = self._wardens[cluster.uuid] if found.role == "master" else []
            if wardens:
                self._wardens[cluster.uuid] = []
        self._end(wardens)

    def load(self, cluster: MachineCluster) -> YarnLoad | None:
        return None

    def close(self) -> None:
        with self._lock:
            wardens = [warden for several in self._wardens.values() for warden in several]
            self._wardens.clear()
        self._end(wardens)

    def _scratch(self, cluster: MachineCluster) -> Path:
        return self._folder / "clusters" / cluster.uuid

    def _temporary(self, cluster: MachineCluster) -> Path:
        """A machine's /tmp, which goes with it. A short path: sockets are made there, too."""
        return self._folder / "tmp" / cluster.uuid[:8]

    @staticmethod
    def _pass_on(warden: subprocess.Popen[str], cancelled: threading.Event, ended: threading.Event) -> None:
        while not cancelled.wait(0.1):
            if ended.is_set():
                return
        for order, seconds in (("term\n", _CANCEL_SECONDS), ("kill\n", 0.0)):
            try:
                assert warden.stdin is not None
                warden.stdin.write(order)
                warden.stdin.flush()
            except (OSError, ValueError):
                return
            if ended.wait(seconds):
                return

    @staticmethod
    def _end(wardens: Sequence[subprocess.Popen[str]]) -> None:
        """EOF tells a warden to end everything below it, and itself."""
        for warden in wardens:
            try:
                assert warden.stdin is not None
                warden.stdin.close()
            except OSError:
                pass
        for warden in wardens:
            warden.wait(240)
            assert warden.stdout is not None
            warden.stdout.close()
