"""Clusters of real nodes for the emulator: namespaces of this host with Hadoop in them."""

from .machines import NodeMachines, missing
from .namespaces import Bind
from .options import Options

__all__ = ["Bind", "NodeMachines", "Options", "missing"]
