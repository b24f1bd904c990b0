"""What the node's set-up (`init_actions/lib.sh`) says of this machine; nothing where there was none."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

READY = "/opt/mayfly/ready.json"


def ready() -> dict[str, Any]:
    """Empty where no set-up has run, or none that came to its end."""
    try:
        with open(os.environ.get("MAYFLY_READY_FILE") or READY, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def share_files() -> None:
    """Where the node has shared directories: what this process and its children make there may be written by its group,
    since the script and the workers are different users there. (The folders' group is inherited, see docs/gcp.md.)"""
    if ready().get("shares"):
        os.umask(0o002)


def gateway_port() -> int:
    """The port of loopback that the cloud's gateway shows as Dask's dashboard: for the first driver that comes. 0 where
    there is no gateway, or where another driver has it: any port will do then."""
    port = ready().get("dashboard")
    if not isinstance(port, int) or not 0 < port < 1 << 16:
        return 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port
