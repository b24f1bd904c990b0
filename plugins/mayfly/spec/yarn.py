"""What may be said of YARN in job.yaml, profiles.yaml and targets.yaml."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from mayfly.contract import YarnPlan
from mayfly.spec.fields import Duration, Model, at_most


def _named(what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", value):
            raise ValueError(
                f"{value!r} is no {what}; use letters, digits, and . _ - between them, as in {_AS_IN[what]}"
            )
        return value

    return AfterValidator(check)


_AS_IN = {"queue": '"batch" or "root.teams.batch"', "node label": '"ssd"'}
Queue = Annotated[str, _named("queue")]
NodeLabel = Annotated[str, _named("node label")]
YarnPriority = Annotated[int, Field(ge=0, le=10_000)]


def _ports(value: object) -> object:
    """`8786` or "30000-30100" as (first, last)."""
    if isinstance(value, tuple):
        return value
    match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", str(value))
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1024 <= first <= last <= 65535:
        raise ValueError(
            f"{value!r} is no port; write one or a range between 1024 and 65535, as in 8786 or 30000-30100"
        )
    return first, last


Ports = Annotated[
    tuple[int, int],
    BeforeValidator(_ports),
    WithJsonSchema({"type": ["integer", "string"], "pattern": r"^\s*\d{1,5}\s*(-\s*\d{1,5}\s*)?$"}),
]
"""First and last; `8786` or `30000-30100` in a file."""


def _address(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", value):
        raise ValueError(f"{value!r} is no address; write a host name or an IPv4 address, without a port")
    return value


class YarnPorts(Model):
    """Ports that a firewall lets through. What is left out may be any free port."""

    scheduler: Ports | None = Field(default=None, description="Of Dask's scheduler, on the driver's machine")
    dashboard: Ports | None = Field(default=None, description="Of Dask's dashboard, on the driver's machine")
    watchdog: Ports | None = Field(default=None, description="For the application master's watch on the driver")
    workers: Ports | None = Field(
        default=None, description="Of the workers, on all nodes; at least two for each worker"
    )


class TargetYarn(Model):
    """The `yarn` key of a target with `launcher: yarn`. Whoever is unsure leaves all of it out."""

    queue: Queue | None = Field(default=None, description="Queue of jobs that name none")
    node_label: NodeLabel | None = Field(default=None, description="Node label of jobs that name none")
    priority: YarnPriority | None = Field(default=None, description="Priority of jobs that name none")
    address: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None, description="Where containers reach the driver's machine; by default it is found out"
    )
    ports: YarnPorts = Field(default=YarnPorts(), description="Ports that a firewall lets through")
    fast_heartbeat: bool = Field(
        default=False, description="The application master asks for containers every second or less, not every five"
    )
    grace: Annotated[Duration, at_most(3600)] = Field(
        default=30.0, description="The application ends by itself when its driver was gone for so long"
    )

    def plan(self) -> YarnPlan:
        """As launchers get it."""
        any_free = (0, 0)
        return YarnPlan(
            queue=self.queue,
            node_label=self.node_label,
            priority=self.priority,
            fast_heartbeat=self.fast_heartbeat,
            address=self.address,
            scheduler_ports=self.ports.scheduler or any_free,
            dashboard_ports=self.ports.dashboard or any_free,
            watchdog_ports=self.ports.watchdog or any_free,
            worker_ports=self.ports.workers or any_free,
            grace=self.grace,
        )
