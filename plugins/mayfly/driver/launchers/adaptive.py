"""Dask's own adaptive scaling, but for one thing: a P2P shuffle is not disturbed.

Retiring a worker while a shuffle transfers makes Dask run the whole shuffle anew. So as long as one is active, no
worker is given back; more may come.
"""

from __future__ import annotations

from typing import Any

from distributed.deploy import adaptive


class Adaptive(adaptive.Adaptive):  # type: ignore[misc]
    """See `distributed.deploy.Adaptive`."""

    async def workers_to_close(self, target: int) -> list[str]:
        if shuffling(self.cluster.scheduler):
            return []
        closing: list[str] = await super().workers_to_close(target)
        return closing


def shuffling(scheduler: Any) -> bool:
    """Whether a P2P shuffle is under way."""
    plugin = scheduler.plugins.get("shuffle")
    return bool(plugin is not None and plugin.active_shuffles)
