"""Names and labels: pure functions of a run's identity, so that a retry finds what its predecessor made.

Rules are those of the strictest backend (Dataproc): a cluster name has at most 51 characters, lower-case letters,
digits and hyphens, and starts with a letter; a label has at most 63 of lower-case letters, digits, `_` and `-`.
"""

from __future__ import annotations

import hashlib
import json
import re

from mayfly.contract import Identity

MAX_NAME = 51
MAX_LABEL = 63
MANAGED_BY = {"managed-by": "mayfly"}
_DIGITS = 10


def fold(job: str) -> str:
    """A job's name as part of a cluster's: lower case, `_` and all else that is not allowed becomes `-`."""
    return re.sub(r"[^a-z0-9]+", "-", job.lower()).strip("-")


def max_job_length(prefix: str) -> int:
    """How long a folded job name may be so that `<prefix>-<job>-<10 hex>` fits."""
    return MAX_NAME - len(prefix) - _DIGITS - 2


def run_key(identity: Identity) -> str:
    """10 hex digits shared by all generations of one run's cluster."""
    return _digest(_parts(identity))


def cluster_name(*, prefix: str, job: str, identity: Identity, generation: int) -> str:
    """`<prefix>-<job>-<10 hex>`; another generation, run, group, map index or installation gives another name."""
    return f"{prefix}-{fold(job)}-{_digest([*_parts(identity), generation])}"


def label(value: str) -> str:
    """Any text as a label value; one that must be shortened keeps a digest, so that it stays unique."""
    text = re.sub(r"[^a-z0-9_-]+", "-", value.lower()).strip("-")
    if len(text) <= MAX_LABEL and text == value:
        return text
    return f"{text[: MAX_LABEL - 9].rstrip('-')}-{_digest([value])[:8]}".lstrip("-")


def _parts(identity: Identity) -> list[str | int]:
    return [identity.installation, identity.dag_id, identity.run_id, identity.group, identity.map_index]


def _digest(parts: list[str | int]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_DIGITS]
