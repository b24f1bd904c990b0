"""Hadoop's configuration files for one machine: written, never edited by hand.

Layout of a cluster's folder: `conf` (clients, NameNode, DataNode, ResourceManager), `node<N>/{conf,local,logs}` (one
NodeManager each), `data` (HDFS, the ResourceManager's state), `logs`, `pids`, `tmp`, `bin` (`yarn`, `hdfs`).
"""

from __future__ import annotations

import getpass
import random
import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from .jars import HadoopError

SCHEDULERS = ("capacity", "fair")
FILESYSTEMS = ("hdfs", "viewfs", "file")
QUEUES = Path(__file__).resolve().parents[2] / "config" / "yarn"
"""Where the queues are configured: `<scheduler>/{yarn-site,<scheduler>-scheduler}.xml`."""
MARK = "MAYFLY_HADOOP"
"""Variable in the environment of all containers (and daemons): the cluster's folder."""

# Hadoop's own default ports; NodeManagers have one address each, so theirs are the same.
FIXED_PORTS = {
    "namenode": 8020, "namenode.http": 9870, "datanode": 9866, "datanode.http": 9864, "datanode.ipc": 9867,
    "rm": 8032, "rm.scheduler": 8030, "rm.tracker": 8031, "rm.admin": 8033, "rm.web": 8088,
    "nm": 8041, "nm.localizer": 8040, "nm.web": 8042,
}  # fmt: skip
LOG4J = """\
log4j.rootLogger=INFO,out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.target=System.err
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %-5p [%t] %c{1}: %m%n
log4j.logger.org.apache.hadoop.util.NativeCodeLoader=ERROR
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be chosen about a cluster; sizes in MB (2**20 bytes), times in seconds."""

    version: str
    scheduler: str = "capacity"
    filesystem: str = "hdfs"
    nodes: int = 2
    node_memory_mb: int = 6144
    node_vcores: int = 8
    enforce_memory: bool = True
    """Kill containers that use more memory than they asked for. Hadoop's own default does not."""
    node_expiry: float = 30.0
    """A NodeManager that has been silent for so long is lost."""
    decommission_timeout: float = 300.0
    """How long a node that is decommissioned gracefully may take, where decommission() names no other time."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """More properties, for all files of all daemons; they win."""
    ports: Mapping[str, int] = field(default_factory=lambda: dict(FIXED_PORTS))

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("scheduler", self.scheduler, SCHEDULERS),
            ("filesystem", self.filesystem, FILESYSTEMS),
        ):
            if value not in allowed:
                raise HadoopError(f"{name} is {value!r}; it can be {', '.join(allowed)}.")
        if not 1 <= self.nodes <= 9:
            raise HadoopError(f"nodes is {self.nodes}; it can be 1 to 9.")

    def address(self, node: int = 1) -> str:
        """Loopback address of a NodeManager, from 1. Two on one address could not be told apart in an exclude file."""
        return f"127.0.0.{node}"

    def at(self, port: str, node: int = 1) -> str:
        return f"{self.address(node)}:{self.ports[port]}"

    @property
    def default_fs(self) -> str:
        return {"hdfs": f"hdfs://{self.at('namenode')}", "viewfs": "viewfs://localhost/", "file": "file:///"}[
            self.filesystem
        ]


def free_ports(nodes: int) -> dict[str, int]:
    """A free port for each, below the range from which the system takes ports of outgoing connections."""
    chosen: dict[str, int] = {}
    candidates = iter(random.SystemRandom().sample(range(15000, 32000), 4000))
    for name in FIXED_PORTS:
        addresses = [f"127.0.0.{n}" for n in range(1, nodes + 1)] if name.startswith("nm") else ["127.0.0.1"]
        chosen[name] = next(port for port in candidates if all(is_free(address, port) for address in addresses))
    return chosen


def is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def read(file: Path) -> dict[str, str]:
    """Properties of a Hadoop configuration file."""
    return {
        (p.findtext("name") or "").strip(): (p.findtext("value") or "").strip()
        for p in ET.parse(file).getroot().iter("property")
    }


def render(properties: Mapping[str, str]) -> str:
    """The text of a Hadoop configuration file."""
    lines = ['<?xml version="1.0"?>', "<configuration>"]
    for name, value in sorted(properties.items()):
        lines.append(f"  <property><name>{escape(name)}</name><value>{escape(value)}</value></property>")
    return "\n".join([*lines, "</configuration>", ""])


def _core(s: Settings, folder: Path) -> Iterator[tuple[str, str]]:
    yield "fs.defaultFS", s.default_fs
    if s.filesystem == "viewfs":
        yield "fs.viewfs.mounttable.localhost.linkFallback", f"file://{folder}/data/fs"
    yield "hadoop.tmp.dir", f"{folder}/tmp"
    # Whoever started the cluster may submit for others, as the services on a shared cluster do.
    for what in ("hosts", "groups"):
        yield f"hadoop.proxyuser.{getpass.getuser()}.{what}", "*"
    yield "ipc.client.connect.max.retries.on.timeouts", "3"


def _hdfs(s: Settings, folder: Path) -> Iterator[tuple[str, str]]:
    yield "dfs.namenode.name.dir", f"file://{folder}/data/name"
    yield "dfs.datanode.data.dir", f"file://{folder}/data/data"
    yield "dfs.namenode.http-address", s.at("namenode.http")
    yield "dfs.datanode.address", s.at("datanode")
    yield "dfs.datanode.http.address", s.at("datanode.http")
    yield "dfs.datanode.ipc.address", s.at("datanode.ipc")
    yield "dfs.datanode.hostname", "127.0.0.1"
    yield "dfs.namenode.datanode.registration.ip-hostname-check", "false"
    yield "dfs.replication", "1"
    yield "dfs.permissions.enabled", "false"
    yield "dfs.namenode.safemode.extension", "0"
    yield "dfs.blockreport.initialDelay", "0"


def _yarn(s: Settings, folder: Path, lib: Path, session: str | None) -> Iterator[tuple[str, str]]:
    yield "yarn.resourcemanager.hostname", s.address()
    for name, port in {"": "rm", "scheduler.": "rm.scheduler", "resource-tracker.": "rm.tracker", "admin.": "rm.admin",
                       "webapp.": "rm.web"}.items():  # fmt: skip
        yield f"yarn.resourcemanager.{name}address", s.at(port)
    classes = "CapacityScheduler" if s.scheduler == "capacity" else "FairScheduler"
    package = f"org.apache.hadoop.yarn.server.resourcemanager.scheduler.{s.scheduler}"
    yield "yarn.resourcemanager.scheduler.class", f"{package}.{classes}"
    yield "yarn.application.classpath", f"{folder}/conf,{lib}/*"
    yield "yarn.scheduler.minimum-allocation-mb", "128"
    yield "yarn.scheduler.maximum-allocation-mb", str(s.node_memory_mb)
    yield "yarn.scheduler.maximum-allocation-vcores", str(s.node_vcores)
    yield "yarn.nodemanager.resource.memory-mb", str(s.node_memory_mb)
    yield "yarn.nodemanager.resource.cpu-vcores", str(s.node_vcores)
    yield "yarn.nm.liveness-monitor.expiry-interval-ms", str(round(1000 * s.node_expiry))
    yield "yarn.resourcemanager.nodes.exclude-path", f"{folder}/conf/nodes.exclude"
    yield "yarn.resourcemanager.nodemanager-graceful-decommission-timeout-secs", str(round(s.decommission_timeout))
    yield "yarn.resourcemanager.decommissioning-nodes-watcher.poll-interval-secs", "1"
    # Applications live on while the ResourceManager restarts.
    yield "yarn.resourcemanager.recovery.enabled", "true"
    store = "org.apache.hadoop.yarn.server.resourcemanager.recovery.FileSystemRMStateStore"
    yield "yarn.resourcemanager.store.class", store
    yield "yarn.resourcemanager.fs.state-store.uri", f"file://{folder}/data/rm"
    yield "yarn.resourcemanager.work-preserving-recovery.scheduling-wait-ms", "1000"
    yield "yarn.log-aggregation-enable", "true"
    logs = f"{folder}/data/applogs" if s.filesystem == "file" else "/logs"
    yield "yarn.nodemanager.remote-app-log-dir", logs
    # True would leave the killing to cgroups, that is: to nobody, where they are not set up.
    yield "yarn.nodemanager.resource.memory.enforced", "false"
    yield "yarn.nodemanager.pmem-check-enabled", str(s.enforce_memory).lower()
    yield "yarn.nodemanager.vmem-check-enabled", "false"
    yield "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage", "99.5"
    marks = f"{MARK}={folder}" + (f",MAYFLY_TEST_SESSION={session}" if session else "")
    yield "yarn.nodemanager.admin-env", f"MALLOC_ARENA_MAX=$MALLOC_ARENA_MAX,{marks}"


def _node(s: Settings, folder: Path, node: int) -> Iterator[tuple[str, str]]:
    yield "yarn.nodemanager.hostname", s.address(node)
    yield "yarn.nodemanager.bind-host", s.address(node)
    yield "yarn.nodemanager.address", s.at("nm", node)
    yield "yarn.nodemanager.localizer.address", s.at("nm.localizer", node)
    yield "yarn.nodemanager.webapp.address", s.at("nm.web", node)
    # A ResourceManager that restarts sees its nodes in a second, not in 30; clients keep Hadoop's own intervals.
    yield "yarn.nodemanager.resourcemanager.connect.retry-interval.ms", "1000"
    yield "yarn.nodemanager.local-dirs", f"{folder}/node{node}/local"
    yield "yarn.nodemanager.log-dirs", f"{folder}/node{node}/logs"


def write(s: Settings, folder: Path, lib: Path, session: str | None = None) -> None:
    """Write all configuration of a cluster below its folder."""
    for name in ("logs", "pids", "tmp", "bin", "data/rm", "data/fs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    queues = QUEUES / s.scheduler
    yarn = dict(_yarn(s, folder, lib, session)) | read(queues / "yarn-site.xml")
    for node in range(s.nodes + 1):
        conf = folder / (f"node{node}/conf" if node else "conf")
        for name in ("hdfs", "datanode"):  # the HDFS daemons want these folders to be there, if empty
            (conf / "webapps" / name).mkdir(parents=True, exist_ok=True)
        (conf / "core-site.xml").write_text(render(dict(_core(s, folder)) | s.properties))
        (conf / "hdfs-site.xml").write_text(render(dict(_hdfs(s, folder)) | s.properties))
        (conf / "yarn-site.xml").write_text(
            render(yarn | (dict(_node(s, folder, node)) if node else {}) | s.properties)
        )
        for file in queues.glob("*-scheduler.xml"):
            (conf / file.name).write_bytes(file.read_bytes())
        (conf / "log4j.properties").write_text(LOG4J)
        (conf / "nodes.exclude").touch()
