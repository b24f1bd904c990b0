"""The metadata server of a cluster's nodes, as Compute Engine and Dataproc fill it. It knows who asks by the address.

Answers are those of documentation: text for a value, a list for a folder, JSON for `recursive=true`, 403 without
`Metadata-Flavor: Google`, and `wait_for_change` with `timeout_sec` and `last_etag`.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.emulators.dataproc.machines import MachineCluster

PROJECT_NUMBER = "123456789012"
_SCOPES = "https://www.googleapis.com/auth/cloud-platform"
_LONGEST_WAIT = 3600.0
TOKEN = "emulated-token"
"""No secret: no object store of an emulator asks for one."""

SHIM = """\
#!/bin/sh
# As on Compute Engine's images: get_metadata_value attributes/NAME
exec curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/$1"
"""


def zone(cluster: MachineCluster) -> str:
    return f"{cluster.region}-a"


def hostname(cluster: MachineCluster, name: str) -> str:
    """A node's name with its domain: also the one under which YARN knows it."""
    return f"{name}.{zone(cluster)}.c.{cluster.project}.internal"


@dataclass
class Instance:
    """What the server knows of one node."""

    name: str
    hostname: str
    """With its domain."""
    id: str
    address: str
    zone: str
    project: str
    machine_type: str
    preemptible: bool
    service_account: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    preempted: bool = False

    def tree(self) -> dict[str, Any]:
        account = {"aliases": ["default"], "email": self.service_account, "scopes": [_SCOPES], "token": None}
        return {
            "instance": {
                "attributes": dict(self.attributes),
                "hostname": self.hostname,
                "id": self.id,
                "machine-type": f"projects/{PROJECT_NUMBER}/machineTypes/{self.machine_type}",
                "maintenance-event": "NONE",
                "name": self.name,
                "network-interfaces": {"0": {"ip": self.address}},
                "preempted": str(self.preempted).upper(),
                "scheduling": {"preemptible": str(self.preemptible).upper()},
                "service-accounts": {"default": account, self.service_account: account},
                "zone": f"projects/{PROJECT_NUMBER}/zones/{self.zone}",
            },
            "project": {"numeric-project-id": PROJECT_NUMBER, "project-id": self.project},
        }


class MetadataServer:
    """Serves all nodes of a cluster on one listening socket, which it closes."""

    def __init__(self, listener: socket.socket) -> None:
        self._instances: dict[str, Instance] = {}
        self._changed = threading.Condition()
        self._closed = False
        handler = type("Handler", (_Handler,), {"metadata": self})
        self._server = ThreadingHTTPServer(listener.getsockname()[:2], handler, bind_and_activate=False)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.socket.close()
        self._server.socket = listener
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def add(self, instance: Instance) -> None:
        with self._changed:
            self._instances[instance.address] = instance

    def remove(self, address: str) -> None:
        with self._changed:
            self._instances.pop(address, None)
            self._changed.notify_all()

    def preempt(self, address: str) -> None:
        """The notice: `instance/preempted` is TRUE from now on."""
        with self._changed:
            self._instances[address].preempted = True
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def find(self, address: str, path: list[str]) -> Any:
        """KeyError where there is nothing."""
        with self._changed:
            found: Any = self._instances[address].tree()
        for part in path:
            found = found[part] if isinstance(found, dict) else found[int(part)]
        return found

    def await_change(self, address: str, path: list[str], etag: str | None, seconds: float) -> Any:
        """The value when it is another one than now (or than `etag`), or after so many seconds."""
        value = self.find(address, path)
        first = etag or tag(value)
        deadline = time.monotonic() + min(seconds, _LONGEST_WAIT)
        while tag(value) == first and not self._closed:
            with self._changed:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, 0.5))  # it may have changed since we looked
            value = self.find(address, path)
        return value


def tag(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _camel(value: Any, *, keep: bool = False) -> Any:
    """Keys as in Google's JSON: camelCase, but attributes as they were given; secrets are left out."""
    if isinstance(value, dict):
        return {
            key if keep or "@" in key else re.sub(r"-(\w)", lambda found: found[1].upper(), key): _camel(
                child, keep=key == "attributes"
            )
            for key, child in value.items()
            if child is not None
        }
    return value


class _Handler(BaseHTTPRequestHandler):
    metadata: MetadataServer
    server_version = "Metadata Server for VM"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        if self.headers.get("Metadata-Flavor") != "Google":
            return self._answer(403, "Missing Metadata-Flavor:Google header.", "text/html")
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if not url.path.startswith("/computeMetadata/v1"):
            return self._answer(200, "computeMetadata/\n", "application/text")
        path = [part for part in url.path.removeprefix("/computeMetadata/v1").split("/") if part]
        address = self.client_address[0]
        try:
            if query.get("wait_for_change", "").lower() == "true":
                seconds = float(query.get("timeout_sec") or _LONGEST_WAIT)
                value = self.metadata.await_change(address, path, query.get("last_etag"), seconds)
            else:
                value = self.metadata.find(address, path)
        except (KeyError, IndexError, ValueError, TypeError):
            return self._answer(404, "The requested URL was not found on this server.\n", "text/html")
        if path[-1:] == ["token"] and value is None:
            token = {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}
            return self._answer(200, json.dumps(token), "application/json")
        if isinstance(value, dict) and query.get("recursive", "").lower() == "true":
            return self._answer(
                200, json.dumps(_camel(value, keep=path[-1:] == ["attributes"])), "application/json", value
            )
        if isinstance(value, dict):
            lines = [f"{key}/" if isinstance(child, dict) else key for key, child in value.items()]
            return self._answer(200, "".join(f"{line}\n" for line in lines), "application/text", value)
        if query.get("alt") == "json":
            return self._answer(200, json.dumps(value), "application/json", value)
        text = "".join(f"{item}\n" for item in value) if isinstance(value, list) else str(value)
        return self._answer(200, text, "application/text", value)

    def _answer(self, status: int, text: str, kind: str, value: Any = None) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", kind)
        self.send_header("ETag", tag(value))
        # No connection outlives its request: an open socket would keep the network of a cluster that is gone.
        self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
