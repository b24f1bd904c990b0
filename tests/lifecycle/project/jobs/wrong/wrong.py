"""Fails as user code does."""

from __future__ import annotations

from dask.distributed import Client

if __name__ == "__main__":
    with Client() as client:
        client.submit(int, "no number").result()
