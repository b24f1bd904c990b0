"""The tags of our YARN applications: how a driver, a delete or a person finds those of one run. Pure."""

from __future__ import annotations

LONGEST = 100
"""Characters; YARN's limit."""


def tag_of(cluster: str) -> str:
    """Of all applications of one run's cluster."""
    return _tag(f"mayfly-{cluster}")


def tags(*, cluster: str, job: str, attempt: int, owner: str) -> frozenset[str]:
    """Of one attempt. The owner's nonce is the run's proof of being ours, as the label of a cluster is."""
    rest = ("mayfly", f"mayfly-job-{job}", f"mayfly-attempt-{attempt}")
    return frozenset({tag_of(cluster), owner_tag(owner), *map(_tag, rest)})


def owner_tag(owner: str) -> str:
    """Who may end it."""
    return _tag(f"mayfly-owner-{owner}")


def _tag(text: str) -> str:
    """As YARN takes them: ASCII, lower case, no comma (it separates them in questions)."""
    return text.encode("ascii", "replace").decode().replace(",", "-").lower()[:LONGEST]
