"""A cluster's life as it is written down: create calls, progress, closing, receipt."""

from __future__ import annotations

from dataclasses import dataclass

from mayfly.contract.values import SCHEMA, Timestamp


@dataclass(frozen=True, kw_only=True)
class CreateCall:
    """calls/<n>.json, written before the n-th create call: what will exist, and who asks for it."""

    name: str
    owner: str
    at: Timestamp
    by: str
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class CreateReturn:
    """calls/<n>.done.json: that call has returned, or was not made after all (`called` is False).

    While it is absent the call may still take effect.
    """

    at: Timestamp
    called: bool = True
    detail: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class CreateProgress:
    """progress.json: what create has told people, so that each thing is told once. A hint: rewritten as it goes."""

    shown: str = ""
    nodes: tuple[str, ...] = ()
    gateway: str = ""
    """An address of the cluster's own web pages."""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Closing:
    """closing.json: from here on nothing may start in this generation. closing/<who>.json: who else has taken the
    deletion up, and when."""

    at: Timestamp
    by: str
    reason: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """jobs/<job>/<attempt>/waiting.json: since when a cluster that cannot take this attempt yet is waited for."""

    at: Timestamp
    reason: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Deleting:
    """deleting.json: delete has seen these clusters; a later try that finds nothing knows that they were there."""

    found: tuple[str, ...]
    at: Timestamp
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """receipt.json: the proof of deletion. `rule` says how absence was shown, `checks` what was looked at."""

    name: str
    generation: int
    owner: str
    created_at: Timestamp | None
    deleted_at: Timestamp
    rule: str
    checks: tuple[str, ...]
    billed_seconds: float
    cost: float | None
    by: str
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Notified:
    """notified/<notifier>.json: this notifier of `notify:` has said how the generation ended."""

    at: Timestamp
    by: str
    schema: int = SCHEMA
