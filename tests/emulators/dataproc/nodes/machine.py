"""One node with all that serves it on this host."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.emulators.dataproc.machines import MachineNode
from tests.emulators.dataproc.nodes import metadata
from tests.emulators.dataproc.nodes.hadoop import Layout
from tests.emulators.dataproc.nodes.namespaces import Node
from tests.emulators.dataproc.nodes.nfs import Mounts
from tests.emulators.dataproc.nodes.relay import Relay

_SERVICE_ACCOUNT = f"{metadata.PROJECT_NUMBER}-compute@developer.gserviceaccount.com"


@dataclass
class Machine:
    """A booted node with what serves it on this host."""

    spec: MachineNode
    node: Node
    relays: list[Relay]
    mounts: Mounts | None = None

    def hold(self, held: bool) -> None:
        for relay in self.relays:
            relay.hold(held)
        if self.mounts is not None:
            self.mounts.hold(held)

    def close(self) -> None:
        """Nothing of it is left."""
        if self.mounts is not None:
            self.mounts.close()
        self.node.kill()
        for relay in self.relays:
            relay.close()


def instance(spec: MachineNode, address: str, layout: Layout, workers: int) -> metadata.Instance:
    """What the metadata server says of a node."""
    cluster = layout.cluster
    given = {
        "dataproc-bucket": cluster.staging_bucket,
        "dataproc-cluster-configuration-directory": f"{cluster.metainfo}/",
        "dataproc-cluster-name": cluster.name,
        "dataproc-cluster-uuid": cluster.uuid,
        "dataproc-datanode-enabled": str("datanode" in layout.daemons(spec)).lower(),
        "dataproc-master": layout.master.split(".")[0],
        "dataproc-region": cluster.region,
        "dataproc-role": "Master" if spec.role == "master" else "Worker",
        "dataproc-worker-count": str(workers),
    }
    return metadata.Instance(
        name=spec.name,
        hostname=metadata.hostname(cluster, spec.name),
        address=address,
        id=str(random.SystemRandom().randrange(10**18, 9 * 10**18)),
        zone=metadata.zone(cluster),
        project=cluster.project,
        machine_type=f"custom-{spec.cores}-{spec.memory >> 20}",
        preemptible=spec.preemptible,
        service_account=_SERVICE_ACCOUNT,
        attributes=dict(cluster.metadata) | given,
    )
