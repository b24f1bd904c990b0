"""Init actions on a node, as Dataproc runs them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from tests.emulators.dataproc.machines import MachineCluster, NodeFailed, init_failed
from tests.emulators.dataproc.nodes.namespaces import Entry, Node
from tests.emulators.dataproc.nodes.network import FarmError
from tests.emulators.dataproc.nodes.processes import end_tree
from tests.emulators.dataproc.objects import Objects

_SCRIPTS = "/etc/google-dataproc/startup-scripts"


def after_services(cluster: MachineCluster, role: str) -> bool:
    """Whether the init actions of master or worker run when the daemons do; else before them."""
    return cluster.properties.get(f"dataproc:dataproc.{role}.custom.init.actions.mode") == "RUN_AFTER_SERVICES"


def run(
    cluster: MachineCluster,
    node: Node,
    objects: Objects,
    folder: Path,
    env: Mapping[str, str],
    cancelled: threading.Event,
) -> None:
    """Run all init actions on a node as root, one after the other. NodeFailed in Google's words."""
    for index, (uri, seconds) in enumerate(cluster.init_actions):
        target = cluster.init_output(node.name, index)
        script = f"{_SCRIPTS}/dataproc-initialization-script-{index}"
        log = folder / f"{node.name}-init-{index}.log"
        try:
            content = objects.read(uri)
        except OSError as error:
            raise NodeFailed(node.name, f"could not fetch {uri}: {error}") from error
        node.put({script: Entry(content=content, mode=0o700)})
        process = node.start([script], output=log, env=env)
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline and not cancelled.wait(0.02):
            pass
        code = process.poll()
        if code is None:
            end_tree(process)
        if cancelled.is_set():
            raise FarmError("cancelled")
        objects.write(target, log.read_bytes())
        if code != 0:
            raise NodeFailed(node.name, init_failed(action=uri, output_uri=target, timed_out=code is None), target)
