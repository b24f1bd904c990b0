"""A real single-machine Hadoop for developers and tests: `Hadoop(folder).start()`; `make yarn-up` by hand.

The standard library only: it must run before anything is installed.
"""

from .cluster import Hadoop, stop
from .jars import DEFAULT_VERSION, HadoopError, missing, versions

__all__ = ["DEFAULT_VERSION", "Hadoop", "HadoopError", "missing", "stop", "versions"]
