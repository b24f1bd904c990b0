"""Hadoop of one cluster of nodes, started and asked: HDFS, YARN, decommissioning."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scripts.hadoop import jars
from tests.emulators.dataproc.machines import MachineNode, YarnLoad
from tests.emulators.dataproc.nodes import hadoop
from tests.emulators.dataproc.nodes.metadata import hostname
from tests.emulators.dataproc.nodes.namespaces import Entry, Node
from tests.emulators.dataproc.nodes.network import FarmError
from tests.emulators.dataproc.nodes.processes import descendants, send

_POLL_SECONDS = 0.2
# A node is never behind a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_FOLDERS = {"/": ("755", "hdfs"), "/tmp": ("1777", "hdfs"), "/user": ("1777", "hdfs"), "/yarn-logs": ("1777", "yarn")}
"""Of HDFS: permission and owner."""


class ServiceFailed(Exception):
    """A daemon ended, or did not come up in time."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(node, message)
        self.node, self.message = node, message


class Services:
    """`folder` gets the daemons' output: `<node>-<daemon>.log`."""

    def __init__(self, layout: hadoop.Layout, master: Node, folder: Path) -> None:
        self.layout, self.master, self._folder = layout, master, folder
        self._running: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._excluded: set[str] = set()
        self._leaving: set[str] = set()
        """Nodes whose daemons were asked to end: that they do is no failure."""

    # ------------------------------------------------------------ life

    def install(self, node: Node, machine: MachineNode) -> None:
        """Everything but the jars, which are bound."""
        entries = hadoop.users_files() | self.layout.files(machine)
        if machine.role == "master":
            kept = jars.cache_dir(self.layout.version) / "formatted.tar"
            if kept.exists():
                entries |= hadoop.formatted(kept)
        node.put(entries)

    def start(self, node: Node, machine: MachineNode) -> None:
        for daemon in self.layout.daemons(machine):
            argv, env, user = self.layout.java(daemon)
            if daemon == "namenode" and not (jars.cache_dir(self.layout.version) / "formatted.tar").exists():
                node.run(*argv, "-format", "-nonInteractive", env=env, user=user, seconds=240)
            log = self._folder / f"{node.name}-{daemon}.log"
            process = node.start(argv, output=log, env=env, user=user)
            with self._lock:
                self._running[node.name, daemon] = process

    def forget(self, name: str) -> list[subprocess.Popen[bytes]]:
        """A node is about to go: the ends of its daemons, which are returned, are no failure."""
        with self._lock:
            self._leaving.discard(name)
            return [self._running.pop(key) for key in list(self._running) if key[0] == name]

    def ask_to_end(self, name: str) -> None:
        """SIGTERM to a node's daemons: a NodeManager then ends its containers and says good-bye."""
        with self._lock:
            self._leaving.add(name)
            daemons = [daemon for (node, _), daemon in self._running.items() if node == name]
        for daemon in daemons:
            send(descendants(daemon.pid)[:1], signal.SIGTERM)

    def await_master(self, cancelled: threading.Event, seconds: float) -> None:
        """Until HDFS has its folders and the ResourceManager answers."""
        self._await(self._hdfs_up, "HDFS", cancelled, seconds)
        for folder, (permission, owner) in _FOLDERS.items():
            self._webhdfs(folder, f"MKDIRS&permission={permission}")
            self._webhdfs(folder, f"SETOWNER&owner={owner}&group=hadoop")
        self._await(lambda: bool(self.ask("info")), "the ResourceManager", cancelled, seconds)

    def label(self, names: Iterable[str]) -> None:
        """Keep application masters off these nodes, where the cluster wants that."""
        names = list(names)
        if not names or not self.layout.primary_only:
            return
        label = {"name": hadoop.SECONDARY_LABEL, "exclusivity": "false"}
        known = (self.ask("get-node-labels") or {}).get("nodeLabelInfo") or []
        if not known:
            self.ask("add-node-labels", "POST", {"nodeLabelInfo": [label]})
        entries = [{"nodeId": f"{name}:0", "labels": [hadoop.SECONDARY_LABEL]} for name in names]
        self.ask("replace-node-to-labels", "POST", {"nodeToLabels": entries})

    def await_nodes(self, names: Iterable[str], cancelled: threading.Event, seconds: float) -> None:
        """Until these nodes are RUNNING in YARN."""
        wanted = set(names)
        self._await(lambda: wanted <= self.running(), f"NodeManagers of {sorted(wanted)}", cancelled, seconds)

    def await_blocks(self, count: int, cancelled: threading.Event, seconds: float) -> None:
        self._await(lambda: self._namesystem()["NumLiveDataNodes"] >= count, f"{count} DataNodes", cancelled, seconds)

    def _await(self, happened: Callable[[], bool], what: str, cancelled: threading.Event, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        last = ""
        while not cancelled.is_set():
            try:
                if happened():
                    return
            except (OSError, ValueError, LookupError, TypeError) as error:
                last = f": {error}"
            with self._lock:
                ended = [key for key, daemon in self._running.items() if daemon.poll() is not None]
            for name, daemon in [key for key in ended if key[0] not in self._leaving]:
                raise ServiceFailed(name, f"{daemon} ended:\n{self.tail(name, daemon)}")
            if time.monotonic() > deadline:
                raise ServiceFailed(self.master.name, f"{what}: not up after {seconds:g} s{last}")
            cancelled.wait(_POLL_SECONDS)
        raise FarmError("cancelled")

    def tail(self, name: str, daemon: str, lines: int = 15) -> str:
        try:
            text = (self._folder / f"{name}-{daemon}.log").read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    # ------------------------------------------------------------ what it says

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        """The ResourceManager's REST interface at /ws/v1/cluster/<path>; OSError when it is down."""
        url = f"http://{self.master.address}:{hadoop.RM_PORT}/ws/v1/cluster/{path}"
        text = self._fetch(f"{url}?user.name=yarn" if method != "GET" else url, method, body)
        return json.loads(text) if text.startswith(b"{") else None

    def states(self) -> dict[str, str]:
        """Node -> its state in YARN, by its name without domain."""
        every = "NEW,RUNNING,UNHEALTHY,DECOMMISSIONING,DECOMMISSIONED,LOST,REBOOTED,SHUTDOWN"
        found = ((self.ask(f"nodes?states={every}") or {}).get("nodes") or {}).get("node", [])
        # A node that came back under its name is in the list twice.
        found.sort(key=lambda node: node["state"] == "RUNNING")
        return {node["nodeHostName"].split(".")[0]: node["state"] for node in found}

    def running(self) -> set[str]:
        return {name for name, state in self.states().items() if state == "RUNNING"}

    def load(self) -> YarnLoad | None:
        try:
            said = self.ask("metrics")["clusterMetrics"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        applications = said["appsPending"] + said["appsRunning"]
        return YarnLoad(
            pending_mib=said.get("pendingMB", 0), allocated_mib=said["allocatedMB"], applications=applications
        )

    def _hdfs_up(self) -> bool:
        return bool(self._namesystem()["FSState"] == "Operational")

    def _namesystem(self) -> dict[str, Any]:
        bean = "Hadoop:service=NameNode,name=FSNamesystemState"
        url = f"http://{self.master.address}:{hadoop.NAMENODE_PORT}/jmx?qry={bean}"
        found: dict[str, Any] = json.loads(self._fetch(url))["beans"][0]
        return found

    def _webhdfs(self, folder: str, operation: str) -> None:
        url = f"http://{self.master.address}:{hadoop.NAMENODE_PORT}/webhdfs/v1{folder}?op={operation}&user.name=hdfs"
        self._fetch(url, "PUT")

    def _fetch(self, url: str, method: str = "GET", body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)

        def fetch() -> bytes:
            with _OPENER.open(request, timeout=60) as answer:
                return bytes(answer.read())

        try:
            return self.master.within(fetch)
        except urllib.error.HTTPError as error:
            with error:
                raise OSError(f"{url}: {error.code} {error.read().decode(errors='replace')[:500]}") from None

    # ------------------------------------------------------------ decommissioning

    def decommission(self, names: Iterable[str], seconds: float) -> None:
        """Out of YARN: gracefully for at most `seconds`, then at once."""
        wanted = set(names) & set(self.states())
        if not wanted:
            return
        with self._lock:
            self._excluded |= wanted
        self._refresh(seconds)
        out = {"DECOMMISSIONED", "LOST", "SHUTDOWN"}
        deadline = time.monotonic() + seconds + 10
        while time.monotonic() < deadline:
            states = self.states()
            if all(states.get(name, "LOST") in out for name in wanted):
                return
            time.sleep(_POLL_SECONDS)

    def readmit(self, names: Iterable[str]) -> None:
        """Nodes that were decommissioned may come again."""
        with self._lock:
            back = self._excluded & set(names)
            self._excluded -= back
        if back:
            self._refresh(0)

    def _refresh(self, graceful_seconds: float) -> None:
        with self._lock:
            hosts = "".join(f"{hostname(self.layout.cluster, name)}\n" for name in sorted(self._excluded))
        self.master.put({hadoop.EXCLUDE: Entry(content=hosts)})
        graceful = ["-g", str(round(graceful_seconds)), "-server"] if graceful_seconds >= 1 else []
        env = self.layout.client_environment() | {"HOME": "/var/lib/hadoop-yarn"}
        user = (hadoop.USERS["yarn"], hadoop.HADOOP_GROUP)
        self.master.run("yarn", "rmadmin", "-refreshNodes", *graceful, env=env, user=user, seconds=240)
