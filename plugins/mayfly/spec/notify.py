"""`notify:` of job.yaml: who is told how a run ended."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from mayfly.spec.fields import Model, no_secret

On = Literal["failure", "success", "always"]


def _dotted(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value):
        raise ValueError(
            f"{value!r} is no class; write module and class with dots, as in "
            '"airflow.providers.smtp.notifications.smtp.SmtpNotifier"'
        )
    return value


class NotifySpec(Model):
    """One notifier of Airflow, called once per run."""

    notifier: Annotated[str, AfterValidator(_dotted)] = Field(
        description="Class of an Airflow notifier, with its module: any subclass of BaseNotifier"
    )
    args: Annotated[dict[str, JsonValue], AfterValidator(no_secret)] = Field(
        default={}, description="Its arguments; those it renders itself may hold {{ mayfly.verdict }} and the like"
    )
    on: On = Field(default="failure", description="When: failure, success or always")

    def wanted(self, *, ok: bool) -> bool:
        return self.on == "always" or self.on == ("success" if ok else "failure")
