"""What a cluster has left on YARN: found by tag, ended, waited for. Else a receipt would tell of this machine only.

The driver's machine is where a Hadoop client is, so whoever deletes the cluster there can ask the ResourceManager.
"""

from __future__ import annotations

import os
import time

from mayfly.errors import BackendUnavailable, YarnError
from mayfly.yarn.resource_manager import ResourceManager
from mayfly.yarn.tags import owner_tag, tag_of

PATIENCE = 5.0
"""Seconds of one look; YARN ends an application within two or three, and delete looks again."""
LOOK_SECONDS = 0.3


def end_applications(name: str, *, owner: str) -> tuple[str, ...]:
    """End the YARN applications of cluster `name` that carry the owner's nonce; ids of those that have not ended in
    time. Idempotent: none left is success. BackendUnavailable when the ResourceManager gives no answer: then nothing
    is known, and nothing is proven."""
    until = time.monotonic() + PATIENCE
    try:
        manager = ResourceManager.find(os.environ)
        while True:
            left = [one.id for one in manager.applications(tag_of(name)) if owner_tag(owner) in one.tags]
            if not left or time.monotonic() > until:
                return tuple(left)
            for app_id in left:
                manager.kill(app_id)
            time.sleep(LOOK_SECONDS)
    except YarnError as error:
        raise BackendUnavailable(
            f"cluster {name}: whether YARN applications of it are left is not known ({error})"
        ) from error
