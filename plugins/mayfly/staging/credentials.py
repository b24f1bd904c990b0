"""Who Mayfly is to Google, and the stores of targets, which need to know.

Inside Airflow a target's `connection` is asked, through the Google provider's hook; `mayfly.airflow` registers the way
there, since only it imports Airflow. Elsewhere (command line, drivers on nodes) and without a connection the ambient
credentials are taken: those of the machine, GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login`.
Both act through the target's chain of service accounts (`gcp: impersonate`). No key is ever read from configuration.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from mayfly.contract import FrozenTarget
from mayfly.errors import CredentialsUnavailable
from mayfly.staging.google import Access, acting_as, ambient_access, emulator
from mayfly.staging.stores import Store, open_store

KEPT_SECONDS = 600.0
"""How long credentials are shared in a process: a connection may be changed while an api-server runs."""

Connections = Callable[[str, tuple[str, ...]], Any]
"""(connection id, chain of service accounts) -> credentials of google-auth."""

_connections: list[Connections] = []
_kept: dict[tuple[str | None, tuple[str, ...], int], tuple[float, Access]] = {}
_lock = threading.Lock()


def ask_connections(source: Connections) -> None:
    """From now on targets' connections are looked up by `source`."""
    _connections[:] = [source]


def lacks_emulator(target: FrozenTarget) -> bool:
    """Whether the target is meant for an emulator, and this process knows of none: its project may be somebody's."""
    names = ("DATAPROC_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")
    return target.gcp is not None and target.gcp.emulator and not all(map(os.environ.get, names))


def google_access(target: FrozenTarget) -> Access:
    """Who acts on Google for this target. CredentialsUnavailable when there is nobody."""
    _require_emulator(target)
    chain = target.gcp.impersonate if target.gcp else ()
    connection = target.connection if _connections else None
    key = (connection, chain, os.getpid())
    with _lock:
        since, access = _kept.get(key, (0.0, None))
        if access is None or time.monotonic() - since > KEPT_SECONDS:
            access = _from_connection(connection, chain) if connection else ambient_access(chain)
            _kept[key] = (time.monotonic(), access)
        return access


def target_store(target: FrozenTarget, *, url: str = "") -> Store:
    """The staging store of a target, or the one at `url`, as whoever acts for that target sees it.
    CredentialsUnavailable."""
    _require_emulator(target)
    url = url or target.staging
    if url.startswith(("gs://", "gcs://")) and not emulator():
        return open_store(url, access=google_access(target))
    return open_store(url)


def _require_emulator(target: FrozenTarget) -> None:
    if lacks_emulator(target):
        raise CredentialsUnavailable(
            f"target {target.name!r} is for an emulator (`gcp: emulator: true`), and DATAPROC_EMULATOR_HOST and "
            "STORAGE_EMULATOR_HOST are not both set: `make cloud-up` starts one, then `. .cloud/env.sh`"
        )


def _from_connection(connection: str, chain: tuple[str, ...]) -> Access:
    return Access(_connections[0](connection, chain), f"connection {connection!r}{acting_as(chain)}")
