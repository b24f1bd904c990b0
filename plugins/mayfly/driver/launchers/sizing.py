"""From the size of a YARN container to the memory limit of the Dask worker in it. Pure.

`cluster.worker.memory` is the *container's* size: what the queue is charged with. Dask's limit is smaller, because in
the container lives more than what Dask measures (the worker's process): the nanny, a shell, and whatever the worker's
memory does between two looks. Dask acts at shares of its own limit (0.95 by default: the nanny restarts the worker),
YARN kills at 100 % of the container. The nanny must come first.
"""

from __future__ import annotations

MIB = 1 << 20
NANNY = 96 * MIB
"""The nanny and its shell: 60 to 70 MiB resident, measured with Dask 2026.8 on CPython 3.11, and some room."""
SLACK = 0.05
"""Share of the container for what the worker allocates between two looks of the nanny (0.1 s)."""
SMALLEST = 384 * MIB
"""A container below this has no room for a worker that does anything: an idle one has 80 MiB, with pandas 150."""


def worker_limit(container: int) -> int:
    """Bytes that Dask may use of a container of so many bytes: `container - 96 MiB - 5 %`.

    1 GiB gives 877 MiB (86 %), 14 GB gives 13.2 GB (94 %). ValueError below `SMALLEST`."""
    if container < SMALLEST:
        raise ValueError(
            f"a worker of {container / MIB:.0f} MiB is too small for YARN: its interpreter and Dask's nanny need "
            f"{(NANNY + 80 * MIB) / MIB:.0f} MiB before the first task; give it at least {SMALLEST / MIB:.0f} MiB"
        )
    return container - NANNY - int(container * SLACK)


def container_mib(container: int) -> int:
    """What YARN is asked for, in its own unit; rounded up."""
    return -(-container // MIB)
