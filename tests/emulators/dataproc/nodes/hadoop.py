"""Hadoop as Dataproc's images lay it out on a node: users, files, commands, daemons. Decides; services.py acts.

HDFS has permissions; NodeManagers and so all containers run as `yarn`; who submits is root. What Dataproc's own
defaults are and no document says is Hadoop's default here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.hadoop import commands, conf, jars
from scripts.hadoop.cluster import JVM, MAINS
from tests.emulators.dataproc.machines import MachineCluster, MachineNode
from tests.emulators.dataproc.nodes.namespaces import Bind, Entry

CONF = "/etc/hadoop/conf"
HOME = "/usr/lib/hadoop"
LIB = f"{HOME}/lib"
LOGS = "/var/log/hadoop-yarn"
EXCLUDE = f"{CONF}/nodes_exclude"
SECONDARY_LABEL = "SECONDARY"
RM_PORT, NAMENODE_PORT = 8088, 9870

HADOOP_GROUP = 8000
USERS = {"yarn": 8001, "hdfs": 8002, "mapred": 8003, "spark": 8004}
_USER_OF = {"namenode": "hdfs", "datanode": "hdfs", "resourcemanager": "yarn", "nodemanager": "yarn"}
_FILES = {
    "core": "core-site", "hdfs": "hdfs-site", "yarn": "yarn-site", "mapred": "mapred-site",
    "capacity-scheduler": "capacity-scheduler",
}  # fmt: skip
_VERSIONS = {"2.2": "3.3.6", "2.3": "3.3.6", "3.0": "3.5.0"}


def version(image: str) -> str:
    """Hadoop's version on an image such as "2.2", "2.2-debian12" or "3.0.5"; unknown ones get the newest."""
    return _VERSIONS.get(".".join(image.split("-")[0].split(".")[:2]), jars.DEFAULT_VERSION)


def properties(cluster: MachineCluster, prefix: str) -> dict[str, str]:
    """The cluster's properties of one prefix, without it."""
    return {
        key.removeprefix(f"{prefix}:"): value
        for key, value in cluster.properties.items()
        if key.startswith(f"{prefix}:")
    }


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What does not differ between the nodes of a cluster."""

    cluster: MachineCluster
    master: str
    """Host name of the master."""
    single: bool
    """The master is the only machine, and does all."""
    workers: int
    largest: tuple[int, int]
    """MiB and cores of the largest NodeManager."""
    java_home: Path
    environment: Mapping[str, str]
    """For daemons, and by the NodeManagers' whitelist for containers."""

    @property
    def version(self) -> str:
        return version(self.cluster.image)

    @property
    def primary_only(self) -> bool:
        return self.cluster.properties.get("dataproc:am.primary_only", "").lower() == "true"

    def daemons(self, node: MachineNode) -> tuple[str, ...]:
        """Secondary workers hold no blocks; a node that offers YARN nothing has no NodeManager."""
        found = ["namenode", "resourcemanager"] if node.role == "master" else []
        if node.role == "worker" or self.single:
            found.append("datanode")
        if node.yarn_mib > 0 and (node.role != "master" or self.single):
            found.append("nodemanager")
        return tuple(found)

    def binds(self) -> list[Bind]:
        return [Bind(source=jars.lib(self.version), target=LIB)]

    def java(self, daemon: str) -> tuple[list[str], dict[str, str], tuple[int, int]]:
        """Command, environment and user of a daemon."""
        # Not to verify the classes of jars whose checksums were verified saves an eighth of the start's CPU.
        unverified = ["-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote"]
        options = [*self._options(), *unverified, f"-Dhadoop.log.dir={LOGS}", f"-Dyarn.log.dir={LOGS}"]
        command = [f"{self.java_home}/bin/java", *options, "-cp", f"{LIB}/*:{CONF}", MAINS[daemon]]
        user = _USER_OF[daemon]
        env = self.client_environment() | {"HOME": f"/var/lib/hadoop-{user}", "USER": user, "LOGNAME": user}
        return command, env, (USERS[user], HADOOP_GROUP)

    def client_environment(self) -> dict[str, str]:
        """What a shell on a node knows of Hadoop."""
        return {"JAVA_HOME": str(self.java_home), "HADOOP_CONF_DIR": CONF, "HADOOP_HOME": HOME} | dict(self.environment)

    def _options(self) -> list[str]:
        # Hadoop before 3.5 looks into java.lang (its web pages' dependency injection does).
        opens = ["--add-opens=java.base/java.lang=ALL-UNNAMED"] if self.version < "3.5" else []
        return [*JVM, *opens, f"-Dlog4j.configuration=file:{CONF}/log4j.properties"]

    def files(self, node: MachineNode) -> dict[str, Entry]:
        """All that Hadoop needs on a node but its jars."""
        text = {prefix: properties(self.cluster, prefix) for prefix in _FILES}
        text["core"] = dict(self._core()) | text["core"]
        text["hdfs"] = dict(self._hdfs()) | text["hdfs"]
        text["yarn"] = dict(self._yarn()) | text["yarn"] | dict(self._own(node, text["yarn"]))
        text["capacity-scheduler"] = dict(self._queues()) | text["capacity-scheduler"]
        entries = {
            f"{CONF}/{_FILES[prefix]}.xml": Entry(content=conf.render(values)) for prefix, values in text.items()
        }
        entries[f"{CONF}/log4j.properties"] = Entry(content=conf.LOG4J)
        entries[EXCLUDE] = Entry(content="")
        for place in (f"{CONF}/webapps/hdfs", f"{CONF}/webapps/datanode"):  # HDFS's daemons want them, if empty
            entries[place] = Entry(content=None, mode=0o755)
        owned = {"/hadoop/dfs/name": "hdfs", "/hadoop/dfs/data": "hdfs", "/hadoop/yarn": "yarn", LOGS: "yarn"}
        owned |= {f"/var/lib/hadoop-{user}": user for user in USERS}
        for place, user in owned.items():
            entries[place] = Entry(content=None, mode=0o755, owner=(USERS[user], HADOOP_GROUP))
        for command in commands.NAMES:
            script = commands.script(
                command,
                version=self.version,
                lib=LIB,
                conf=CONF,
                java_home=str(self.java_home),
                options=self._options(),
            )
            entries[f"/usr/bin/{command}"] = Entry(content=script, mode=0o755)
        variables = "".join(f"{key}={value}\n" for key, value in self.client_environment().items())
        entries["/etc/environment"] = Entry(content=variables)
        entries["/etc/profile.d/hadoop.sh"] = Entry(
            content="".join(f"export {line}\n" for line in variables.splitlines())
        )
        return entries

    def _core(self) -> Iterator[tuple[str, str]]:
        yield "fs.defaultFS", f"hdfs://{self.master}:8020"
        yield "hadoop.tmp.dir", "/hadoop/tmp"
        yield "hadoop.http.staticuser.user", "yarn"
        yield "ipc.client.connect.max.retries.on.timeouts", "3"

    def _hdfs(self) -> Iterator[tuple[str, str]]:
        yield "dfs.namenode.name.dir", "file:///hadoop/dfs/name"
        yield "dfs.datanode.data.dir", "file:///hadoop/dfs/data"
        yield "dfs.namenode.http-address", f"{self.master}:{NAMENODE_PORT}"
        yield "dfs.namenode.rpc-bind-host", "0.0.0.0"
        yield "dfs.namenode.http-bind-host", "0.0.0.0"
        yield "dfs.namenode.datanode.registration.ip-hostname-check", "false"
        yield "dfs.replication", str(max(1, min(2, self.workers)))
        yield "dfs.permissions.superusergroup", "hadoop"
        yield "dfs.namenode.safemode.extension", "0"
        yield "dfs.blockreport.initialDelay", "0"

    def _yarn(self) -> Iterator[tuple[str, str]]:
        yield "yarn.resourcemanager.hostname", self.master
        yield "yarn.resourcemanager.bind-host", "0.0.0.0"
        yield "yarn.application.classpath", f"{CONF},{LIB}/*"
        yield "yarn.scheduler.maximum-allocation-mb", str(self.largest[0] or 8192)
        yield "yarn.scheduler.maximum-allocation-vcores", str(self.largest[1] or 4)
        yield "yarn.resourcemanager.nodes.exclude-path", EXCLUDE
        yield "yarn.resourcemanager.decommissioning-nodes-watcher.poll-interval-secs", "1"
        yield "yarn.log-aggregation-enable", "true"
        yield "yarn.nodemanager.remote-app-log-dir", "/yarn-logs"
        yield "yarn.nodemanager.local-dirs", "/hadoop/yarn/nm-local-dir"
        yield "yarn.nodemanager.log-dirs", f"{LOGS}/userlogs"
        # True would leave the killing to cgroups, that is: to nobody, where they are not set up.
        yield "yarn.nodemanager.resource.memory.enforced", "false"
        yield "yarn.nodemanager.vmem-check-enabled", "false"
        yield "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage", "99.5"
        if self.primary_only:
            # Secondary workers are a partition of their own that anybody's containers may use while it is idle, that
            # is always; application masters may not (yarn.node-labels.am.allow-non-exclusive-allocation is false).
            yield "yarn.node-labels.enabled", "true"
            yield "yarn.node-labels.fs-store.root-dir", "file:///hadoop/yarn/labels"

    def _own(self, node: MachineNode, given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        yield "yarn.nodemanager.resource.memory-mb", str(node.yarn_mib)
        yield "yarn.nodemanager.resource.cpu-vcores", str(node.yarn_cores)
        default = (
            "JAVA_HOME,HADOOP_COMMON_HOME,HADOOP_HDFS_HOME,HADOOP_CONF_DIR,HADOOP_YARN_HOME,HADOOP_HOME,PATH,LANG,TZ"
        )
        allowed = given.get("yarn.nodemanager.env-whitelist", default)
        yield "yarn.nodemanager.env-whitelist", ",".join([allowed, *self.environment])

    def _queues(self) -> Iterator[tuple[str, str]]:
        yield "yarn.scheduler.capacity.root.queues", "default"
        yield "yarn.scheduler.capacity.root.default.capacity", "100"


def users_files() -> dict[str, Entry]:
    """/etc/passwd and /etc/group with Hadoop's users, beside this host's."""
    passwd = Path("/etc/passwd").read_text()
    passwd += "".join(
        f"{user}:x:{uid}:{HADOOP_GROUP}::/var/lib/hadoop-{user}:/bin/bash\n" for user, uid in USERS.items()
    )
    return {
        "/etc/passwd": Entry(content=passwd),
        "/etc/group": Entry(content=Path("/etc/group").read_text() + f"hadoop:x:{HADOOP_GROUP}:{','.join(USERS)}\n"),
    }


def formatted(archive: Path) -> dict[str, Entry]:
    """An empty file system, kept from an earlier format."""
    owner = (USERS["hdfs"], HADOOP_GROUP)
    entries: dict[str, Entry] = {}
    with tarfile.open(archive) as tar:
        for info in tar:
            path = f"/hadoop/dfs/name/{info.name.removeprefix('./')}".rstrip("/.")
            file = tar.extractfile(info) if info.isfile() else None
            mode = 0o644 if file else 0o755
            entries[path] = Entry(content=file.read() if file else None, mode=mode, owner=owner)
    return entries


def host_lines(hosts: Sequence[tuple[str, str, str]]) -> str:
    """/etc/hosts from (address, host name with domain, host name)."""
    lines = ["127.0.0.1 localhost", "169.254.169.254 metadata.google.internal metadata"]
    return "".join(f"{line}\n" for line in [*lines, *(" ".join(host) for host in hosts)])
