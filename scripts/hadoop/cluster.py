"""A real Hadoop on this machine: HDFS, a ResourceManager and NodeManagers as processes in one folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import commands, conf, jars
from .daemon import Daemon, marked
from .jars import HadoopError

_READY_SECONDS = 240.0
"""For the start; a quiet machine needs 12 s; with a load of 30 on 2 cores it was 90 s. And for whatever should happen
at once: a machine may have much else to do."""
MAINS = {
    "namenode": "org.apache.hadoop.hdfs.server.namenode.NameNode",
    "datanode": "org.apache.hadoop.hdfs.server.datanode.DataNode",
    "resourcemanager": "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager",
    "nodemanager": "org.apache.hadoop.yarn.server.nodemanager.NodeManager",
}
JVM = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.net.preferIPv4Stack=true",
)
_ALL_NODES = "nodes?states=NEW,RUNNING,UNHEALTHY,DECOMMISSIONING,DECOMMISSIONED,LOST,REBOOTED,SHUTDOWN"
# A page of a loopback address is never behind a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Hadoop:
    """A cluster in a folder of its own, which start() fills and stop() removes.

    `settings` are properties of Hadoop itself; they win over all others. `fixed_ports`: Hadoop's usual ports, so that
    addresses can be remembered; else free ones. All methods wait for what they do and raise HadoopError, with what the
    daemon said last, when it does not happen in time.
    """

    def __init__(
        self,
        folder: Path | str,
        version: str = jars.DEFAULT_VERSION,
        scheduler: str = "capacity",
        filesystem: str = "hdfs",
        nodes: int = 2,
        node_memory_mb: int = 6144,
        node_vcores: int = 8,
        enforce_memory: bool = True,
        node_expiry: float = 30.0,
        settings: Mapping[str, str] | None = None,
        fixed_ports: bool = False,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.settings = conf.Settings(
            version=version, scheduler=scheduler, filesystem=filesystem, nodes=nodes, node_memory_mb=node_memory_mb,
            node_vcores=node_vcores, enforce_memory=enforce_memory, node_expiry=node_expiry,
            properties=dict(settings or {}), ports=conf.FIXED_PORTS if fixed_ports else conf.free_ports(nodes),
        )  # fmt: skip
        self.java_home = jars.java_home()
        self.daemons = {name: Daemon(name, self.folder) for name in self._names()}

    @classmethod
    def attach(cls, folder: Path | str) -> Hadoop:
        """The cluster that another process has started in a folder."""
        found = cls.__new__(cls)
        found.folder = Path(folder).resolve()
        try:
            found.settings = conf.Settings(**json.loads((found.folder / "hadoop.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise HadoopError(f"no Hadoop in {folder}: {error}") from error
        found.java_home = jars.java_home()
        found.daemons = {name: Daemon(name, found.folder) for name in found._names()}
        return found

    def _names(self) -> list[str]:
        hdfs = ["namenode", "datanode"] if self.settings.filesystem == "hdfs" else []
        return [*hdfs, "resourcemanager", *(f"node{n}" for n in range(1, self.settings.nodes + 1))]

    # ------------------------------------------------------------ life

    def start(self) -> Hadoop:
        """Start everything and wait until HDFS and all nodes are usable; whole or not at all."""
        lib = jars.lib(self.settings.version)
        if self.folder.exists() and any(self.folder.iterdir()):
            raise HadoopError(f"{self.folder} is not empty: stop the Hadoop in it first, or choose another folder.")
        self._check_addresses()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            conf.write(self.settings, self.folder, lib, os.environ.get("MAYFLY_TEST_SESSION"))
            (self.folder / "hadoop.json").write_text(json.dumps(asdict(self.settings), indent=2))
            self._write_commands(lib)
            if "namenode" in self.daemons:
                self._format()
            for name in self.daemons:
                self._launch(name)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all daemons and containers and remove the folder."""
        stop(self.folder, list(self.daemons.values()))

    def __enter__(self) -> Hadoop:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _check_addresses(self) -> None:
        s = self.settings
        for node in range(1, s.nodes + 1):
            if not conf.is_free(s.address(node), 0):
                address = s.address(node)
                raise HadoopError(f"{address} is no address of this machine: try `sudo ifconfig lo0 alias {address}`.")
        taken = [
            f"{s.address(node)}:{port}"
            for name, port in s.ports.items()
            for node in range(1, (s.nodes if name.startswith("nm") else 1) + 1)
            if not conf.is_free(s.address(node), port)
        ]
        if taken:
            raise HadoopError(f"in use: {', '.join(taken)}. Is another Hadoop running on this machine?")

    def _write_commands(self, lib: Path) -> None:
        options = [*self._jvm(), f"-Dlog4j.configuration=file:{self.folder}/conf/log4j.properties"]
        for command in commands.NAMES:
            file = self.folder / "bin" / command
            file.write_text(commands.script(
                command, version=self.version, lib=str(lib), conf=f"{self.folder}/conf",
                java_home=str(self.java_home), options=options,
            ))  # fmt: skip
            file.chmod(0o755)

    def _jvm(self) -> list[str]:
        # Hadoop before 3.5 looks into java.lang (its web pages' dependency injection does).
        opens = ["--add-opens=java.base/java.lang=ALL-UNNAMED"] if self.version < "3.5" else []
        return [*JVM, f"-Djava.io.tmpdir={self.folder}/tmp", *opens]

    def _java(self, name: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Command and environment of a daemon. Containers inherit it, so nothing of ours may be in it."""
        kind = "nodemanager" if name.startswith("node") else name
        home = self.folder / (f"{name}/conf" if kind == "nodemanager" else "conf")
        env = {key: os.environ[key] for key in ("HOME", "LANG", "LOGNAME", "PATH", "TZ", "USER") if key in os.environ}
        env |= {"JAVA_HOME": str(self.java_home), "HADOOP_CONF_DIR": str(home), conf.MARK: str(self.folder)}
        if session := os.environ.get("MAYFLY_TEST_SESSION"):
            env["MAYFLY_TEST_SESSION"] = session
        logs = f"-Dhadoop.log.dir={self.folder}/logs", f"-Dyarn.log.dir={self.folder}/logs"
        log4j = f"-Dlog4j.configuration=file:{home}/log4j.properties"
        # Jars before the configuration: so a class-data archive made without it fits.
        classpath = f"{jars.cache_dir(self.version) / 'lib'}/*:{home}"
        java = [f"{self.java_home}/bin/java", *self._jvm(), *logs, log4j]
        return [*java, "-cp", classpath, MAINS[kind], *arguments], env

    def _launch(self, name: str) -> None:
        argv, env = self._java(name)
        self.daemons[name].start(argv, env)

    def _format(self) -> None:
        """An empty file system: formatted once a version, then copied (formatting takes a JVM some 4 s)."""
        kept = jars.cache_dir(self.version) / "formatted.tar"
        name = self.folder / "data" / "name"
        if kept.exists():
            shutil.unpack_archive(kept, name, "tar", filter="data")
            return
        argv, env = self._java("namenode", "-format", "-nonInteractive")
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HadoopError(f"HDFS could not be formatted (exit code {done.returncode}):\n{done.stderr[-2000:]}")
        made = Path(shutil.make_archive(str(self.folder / "tmp" / "formatted"), "tar", name))
        os.replace(shutil.copy(made, kept.with_suffix(f".{os.getpid()}")), kept)

    # ------------------------------------------------------------ addresses

    @property
    def version(self) -> str:
        return self.settings.version

    @property
    def rm_url(self) -> str:
        """Address of the ResourceManager's page, and of its REST interface below /ws/v1."""
        return f"http://{self.settings.at('rm.web')}"

    @property
    def env(self) -> dict[str, str]:
        """What a process that talks to this cluster needs in its environment, on top of its own."""
        path = os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", os.defpath)])
        return {"PATH": path, "HADOOP_CONF_DIR": str(self.folder / "conf"), "JAVA_HOME": str(self.java_home)}

    # ------------------------------------------------------------ what it says

    def get(self, path: str, method: str = "GET", body: object = None, user: str | None = None) -> Any:
        """Answer of the ResourceManager's REST interface to /ws/v1/cluster/<path>; OSError when it is down."""
        url = f"{self.rm_url}/ws/v1/cluster/{path}" + (f"?user.name={user}" if user else "")
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with _OPENER.open(urllib.request.Request(url, data, headers, method=method), timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def apps(self, **query: str) -> list[dict[str, Any]]:
        """Applications, newest first; e.g. apps(states="RUNNING", applicationTags="x")."""
        asked = "&".join(f"{key}={value}" for key, value in query.items())
        found = (self.get(f"apps?{asked}")["apps"] or {}).get("app", [])
        return sorted(found, key=lambda app: app["startedTime"], reverse=True)

    def app(self, app_id: str) -> dict[str, Any]:
        return self.get(f"apps/{app_id}")["app"]

    def node_states(self) -> dict[int, str]:
        """State of each node, from 1, as YARN calls it (RUNNING, LOST, DECOMMISSIONING, ...)."""
        said = (self.get(_ALL_NODES)["nodes"] or {}).get("node", [])
        states = {}
        for node in sorted(said, key=lambda node: node["lastHealthUpdate"]):
            states[self._number(node)] = node["state"]
        return states

    def _number(self, node: Mapping[str, Any]) -> int:
        host = node["id"].partition(":")[0]
        return 1 if host == "localhost" else int(host.rpartition(".")[2])

    # ------------------------------------------------------------ waiting

    def wait(self, what: str, happened: Callable[[], bool], seconds: float = _READY_SECONDS) -> None:
        """Poll until something is so; HadoopError that says `what` was waited for, when it is not so in time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if happened():
                    return
                last = "it is not so"
            except (OSError, ValueError, LookupError, TypeError) as error:  # half an answer, too
                last = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise HadoopError(f"waited {seconds:g} s for this: {what}; {last}")
            time.sleep(0.2)

    def wait_ready(self, seconds: float = _READY_SECONDS) -> None:
        """Until every node is RUNNING and HDFS can be written to."""

        def ready() -> bool:
            for name, daemon in self.daemons.items():
                if daemon.pid is None:
                    raise HadoopError(f"{name} of Hadoop {self.version} ended:\n{daemon.tail()}")
            states = self.node_states()
            if [states.get(n) for n in range(1, self.settings.nodes + 1)] != ["RUNNING"] * self.settings.nodes:
                return False
            return "namenode" not in self.daemons or self._hdfs_ready()

        self.wait(f"all nodes of Hadoop {self.version} running", ready, seconds)

    def _hdfs_ready(self) -> bool:
        bean = "Hadoop:service=NameNode,name=FSNamesystemState"
        with _OPENER.open(f"http://{self.settings.at('namenode.http')}/jmx?qry={bean}", timeout=60) as answer:
            state = json.load(answer)["beans"][0]
        return state["FSState"] == "Operational" and state["NumLiveDataNodes"] == 1

    # ------------------------------------------------------------ mischief

    def kill_resourcemanager(self) -> None:
        """SIGKILL; applications live on and wait for start_resourcemanager()."""
        self.daemons["resourcemanager"].kill()

    def start_resourcemanager(self) -> None:
        self._launch("resourcemanager")
        self.wait_ready()

    def kill_node(self, node: int, containers: bool = False) -> None:
        """SIGKILL a NodeManager; its containers live on as orphans, or die with it as with a machine."""
        self.daemons[f"node{node}"].kill()
        if containers:
            self._kill(self._containers_of(node))

    def start_node(self, node: int) -> None:
        """Start a killed or stopped NodeManager again and wait until it is RUNNING."""
        name = f"node{node}"
        lived = self.daemons[name].pid is not None
        if not lived:
            self._launch(name)

        def running() -> bool:
            nonlocal lived
            if lived and self.daemons[name].pid is None:  # it learns only now that it had been decommissioned
                self._launch(name)
                lived = False
            return self.node_states().get(node) == "RUNNING"

        self.wait(f"node {node} running", running, _READY_SECONDS)

    def _containers_of(self, node: int) -> list[int]:
        return marked("NM_HOST", self._host(node)) or marked("HADOOP_CONF_DIR", f"{self.folder}/node{node}/conf")

    def _host(self, node: int) -> str:
        for said in self.get(_ALL_NODES)["nodes"]["node"]:
            if self._number(said) == node:
                return str(said["nodeHostName"])
        raise HadoopError(f"the ResourceManager knows no node {node}")

    def _kill(self, pids: list[int], number: int = signal.SIGKILL) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def containers(self, container_id: str) -> list[int]:
        """Pids of the processes of a container."""
        return marked("CONTAINER_ID", container_id)

    def kill_container(self, container_id: str, number: int = signal.SIGKILL) -> list[int]:
        """Signal all processes of a container; returns their pids."""
        pids = self.containers(container_id)
        self._kill(pids, number)
        return pids

    def kill_application_master(self, app_id: str) -> list[int]:
        """SIGKILL the application master of a running application, with its children; returns their pids."""
        attempts = self.get(f"apps/{app_id}/appattempts")["appAttempts"]["appAttempt"]
        pids = self.kill_container(attempts[-1]["containerId"])
        if not pids:
            raise HadoopError(f"no process of the application master of {app_id} ({attempts[-1]['containerId']})")
        return pids

    def kill_application(self, app_id: str, user: str | None = None) -> None:
        """Have YARN end an application."""
        user = user or self.app(app_id)["user"]
        self.get(f"apps/{app_id}/state", "PUT", {"state": "KILLED"}, user)
        self.wait(f"{app_id} ended", lambda: self.app(app_id)["state"] in ("FINISHED", "FAILED", "KILLED"))

    def decommission(self, node: int, graceful: bool = True, timeout: float | None = None) -> None:
        """Take a node out: with `graceful` it is DECOMMISSIONING until its applications end or `timeout` seconds."""
        self._exclude(self._excluded() | {self._host(node)})
        if graceful:
            seconds = round(self.settings.decommission_timeout if timeout is None else timeout)
            self.rmadmin("-refreshNodes", "-g", str(seconds), "-server")
        else:
            self.rmadmin("-refreshNodes")
        out = ("DECOMMISSIONING", "DECOMMISSIONED")
        self.wait(f"node {node} decommissioning", lambda: self.node_states().get(node) in out)

    def recommission(self, node: int) -> None:
        """Take a node in again, restarting its NodeManager if it has ended, as a decommissioned one does."""
        self._exclude(self._excluded() - {self._host(node)})
        self.rmadmin("-refreshNodes")
        daemon = self.daemons[f"node{node}"]
        self.wait(
            f"node {node} running, or ended",
            lambda: daemon.pid is None or self.node_states().get(node) == "RUNNING",
        )
        self.start_node(node)

    def heal(self) -> None:
        """Bring back whatever was killed, stopped or taken out, and end all applications."""
        if self.daemons["resourcemanager"].pid is None:
            self._launch("resourcemanager")
        for name, daemon in self.daemons.items():
            daemon.signal(signal.SIGCONT)
            if daemon.pid is None and name in ("namenode", "datanode"):
                self._launch(name)
        self.wait("the ResourceManager answers", lambda: bool(self.get("info")), _READY_SECONDS)
        if self._excluded():
            self._exclude(set())
            self.rmadmin("-refreshNodes")
        for app in self.apps(states="NEW,NEW_SAVING,SUBMITTED,ACCEPTED,RUNNING"):
            self.kill_application(app["id"])
        for node in range(1, self.settings.nodes + 1):
            self.start_node(node)
        self.wait_ready()

    def _excluded(self) -> set[str]:
        return set((self.folder / "conf" / "nodes.exclude").read_text().split())

    def _exclude(self, hosts: set[str]) -> None:
        (self.folder / "conf" / "nodes.exclude").write_text("".join(f"{host}\n" for host in sorted(hosts)))

    def rmadmin(self, *arguments: str) -> str:
        """`yarn rmadmin ...`; what it printed. HadoopError when it failed."""
        return self.command("yarn", "rmadmin", *arguments)

    def command(self, *argv: str, seconds: float = _READY_SECONDS) -> str:
        """Run `yarn ...` or `hdfs ...` against this cluster; what it printed. HadoopError when it failed."""
        done = subprocess.run(
            [str(self.folder / "bin" / argv[0]), *argv[1:]], env=os.environ | self.env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        if done.returncode:
            raise HadoopError(f"`{' '.join(argv)}` failed (exit code {done.returncode}):\n{done.stderr[-2000:]}")
        return done.stdout


def stop(folder: Path, daemons: list[Daemon] | None = None) -> bool:
    """End what runs in a cluster's folder and remove it; whether there was anything. Needs no Java and no REST."""
    folder = folder.resolve()
    if not folder.exists():
        return False
    known = {daemon.name: daemon for daemon in daemons or ()}
    for file in (folder / "pids").glob("*.json"):
        known.setdefault(file.stem, Daemon(file.stem, folder))
    # NodeManagers first: they end their containers, as long as they have somebody to tell.
    order = sorted(known.values(), key=lambda daemon: not daemon.name.startswith("node"))
    for daemon in order:
        daemon.signal(signal.SIGTERM)
        daemon.signal(signal.SIGCONT)
    for daemon in order:
        daemon.stop()
    while left := marked(conf.MARK, str(folder)):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    shutil.rmtree(folder)
    return True
