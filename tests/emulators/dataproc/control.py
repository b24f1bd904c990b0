"""The control API: what tests and people ask of the emulator itself. JSON over HTTP below /emulator/; see README.md."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from google.cloud import dataproc_v1 as sdk

from tests.emulators.dataproc import lives, shapes
from tests.emulators.dataproc.errors import ApiError
from tests.emulators.dataproc.jobs import JobState
from tests.emulators.dataproc.service import Service
from tests.emulators.dataproc.world import ClusterEntry, State


class Control:
    def __init__(self, service: Service) -> None:
        self.service, self.world = service, service.world

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """KeyError, ValueError and TypeError are the caller's mistakes."""
        handler = getattr(self, f"{method.lower()}_{path.strip('/').replace('/', '_')}", None)
        if handler is None:
            raise ApiError("NOT_FOUND", f"{method} /emulator/{path}: there is no such thing; see README.md")
        return handler(body)

    # -- looking

    def get_clusters(self, body: dict[str, Any]) -> Any:
        """Those that hold machines, whatever their state."""
        with self.world.lock:
            return [lives.summary(entry) for entry in self.world.clusters.values()]

    def get_history(self, body: dict[str, Any]) -> Any:
        with self.world.lock:
            return [lives.summary(entry) for entry in self.world.history]

    def get_jobs(self, body: dict[str, Any]) -> Any:
        with self.world.lock:
            return [
                {
                    "id": entry.key[2],
                    "cluster": entry.cluster.name,
                    "cluster_uuid": entry.cluster.pb.cluster_uuid,
                    "state": JobState(entry.pb.status.state).name,
                    "details": entry.pb.status.details,
                }
                for entry in self.world.jobs.values()
            ]

    def get_policies(self, body: dict[str, Any]) -> Any:
        with self.world.lock:
            return [policy.name for policy in self.world.policies.values()]

    def get_calls(self, body: dict[str, Any]) -> Any:
        """verb -> code -> how often."""
        with self.world.lock:
            found: dict[str, dict[str, int]] = {}
            for (verb, code), number in self.world.calls.items():
                found.setdefault(verb, {})[code] = number
            return found

    def get_log(self, body: dict[str, Any]) -> Any:
        with self.world.lock:
            return list(self.world.log)

    def get_rules(self, body: dict[str, Any]) -> Any:
        """Rule id -> how often it has fired."""
        return self.world.faults.fired()

    def get_settings(self, body: dict[str, Any]) -> Any:
        return dataclasses.asdict(self.world.settings)

    # -- doing

    def post_rules(self, body: dict[str, Any]) -> Any:
        return {"id": self.world.faults.add(body, set(self.service.verbs))}

    def delete_rules(self, body: dict[str, Any]) -> Any:
        self.world.faults.clear()
        return {}

    def delete_rule(self, body: dict[str, Any]) -> Any:
        self.world.faults.remove(body["id"])
        return {}

    def delete_calls(self, body: dict[str, Any]) -> Any:
        with self.world.lock:
            self.world.calls.clear()
            self.world.log.clear()
        return {}

    def post_settings(self, body: dict[str, Any]) -> Any:
        with self.world.lock:
            for name, value in body.items():
                kind = type(getattr(self.world.settings, name))
                setattr(self.world.settings, name, kind(value))
        return self.get_settings({})

    def post_node(self, body: dict[str, Any]) -> Any:
        """{"cluster", "node", "do": preempt | lose | cut | heal}; `node` with or without the cluster's name."""
        entry = self._cluster(body)
        if body["do"] not in ("preempt", "lose", "cut", "heal"):
            raise ValueError(f"a node cannot {body['do']!r}; it can: preempt, lose, cut, heal")
        node = body["node"]
        node = node if node.startswith(f"{entry.name}-") else f"{entry.name}-{node}"
        with self.world.lock:
            names = [found.name for found in shapes.nodes_of(entry.pb)]
        if node not in names:
            raise KeyError(f"no node {node!r}; there are: {', '.join(names)}")
        threading.Thread(target=lives.node_fault, args=(self.world, entry, node, body["do"]), daemon=True).start()
        return {"node": node}

    def post_state(self, body: dict[str, Any]) -> Any:
        """{"cluster", "state", "detail", "substate"}: the API says so from now on; nothing else happens. ERROR ends
        the cluster's jobs."""
        entry = self._cluster(body)
        substate = sdk.ClusterStatus.Substate[body.get("substate", "UNSPECIFIED")]
        if body["state"] == "ERROR":
            lives.end_jobs(self.world, entry, body.get("detail", ""))
        self.world.set_state(entry, State[body["state"]], body.get("detail", ""), substate)
        return lives.summary(entry)

    def post_clear(self, body: dict[str, Any]) -> Any:
        """Rules are forgotten, all clusters deleted (blocks until they are gone), all lists and counts emptied."""
        world = self.world
        world.faults.clear()
        with world.lock:
            entries = list(world.clusters.values())
        for entry in entries:
            with world.lock:
                entry.cancelled.set()
                world.clusters.pop(entry.key, None)
            lives.end_jobs(world, entry, "Cleared.")
            entry.started.wait(240)
            world.machines.stop(entry.spec)
        with world.lock:
            for several in (world.history, world.jobs, world.policies, world.requests, world.operations, world.recent):
                several.clear()
            world.calls.clear()
            world.log.clear()
        return {}

    def _cluster(self, body: dict[str, Any]) -> ClusterEntry:
        with self.world.lock:
            found = [entry for entry in self.world.clusters.values() if entry.name == body["cluster"]]
        if not found:
            raise KeyError(f"no cluster {body['cluster']!r}")
        return found[0]
