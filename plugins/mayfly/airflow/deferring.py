"""Whether a waiting job defers to the triggerer or reschedules itself: key `waiting` of a target.

Rescheduling works everywhere. Deferring saves a process for each look, but needs Mayfly installed in the triggerer
(plugins folders are not synchronised there by managed Airflows), and below Airflow 3.3 a trigger that looks up a
connection kills the whole triggerer, with everybody's triggers in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from mayfly.contract import FrozenTarget

SAFE_CONNECTIONS = (3, 3)
"""Airflow from which on triggers may look up connections."""


class Choice(NamedTuple):
    deferred: bool
    why: str

    def __str__(self) -> str:
        return f"waiting by {'deferring to the triggerer' if self.deferred else 'rescheduling'}: {self.why}"


def choose(target: FrozenTarget, *, installed: bool, airflow: tuple[int, ...]) -> Choice:
    """Pure. `deferred` is not obeyed where it would kill the triggerer: that would be everybody's."""
    deadly = target.connection is not None and airflow[:2] < SAFE_CONNECTIONS
    version = ".".join(map(str, airflow[:2]))
    if target.waiting == "reschedule":
        return Choice(False, "the target says so")
    if deadly:
        return Choice(False, f"the target needs a connection, which no trigger of Airflow {version} may look up")
    if target.waiting == "deferred":
        return Choice(True, "the target says so")
    if not installed:
        return Choice(False, "Mayfly is not installed as a package, so the triggerer may not have it")
    return Choice(True, "Mayfly is installed as a package")


def choose_here(target: FrozenTarget) -> Choice:
    from airflow import __version__

    numbers = tuple(int(part) for part in __version__.split(".")[:2])
    return choose(target, installed=target.waiting == "auto" and is_installed(), airflow=numbers)


def is_installed() -> bool:
    """Whether this code is that of an installed distribution; an editable one is not, nor is a plugins folder."""
    from importlib.metadata import PackageNotFoundError, distribution

    here = Path(__file__)
    try:
        place: Any = distribution("mayfly").locate_file("mayfly/airflow/deferring.py")
        return Path(place).samefile(here)
    except (PackageNotFoundError, OSError):
        return False
