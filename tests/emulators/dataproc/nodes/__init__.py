"""Clusters of real nodes for the emulator: namespaces of this host with Hadoop in them."""

from .cluster import Options
from .machines import NodeMachines, missing
from .namespaces import Bind

__all__ = ["Bind", "NodeMachines", "Options", "missing"]
