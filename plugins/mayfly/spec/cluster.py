"""The part of job.yaml that says which Dask cluster the job wants."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from mayfly.spec.fields import Model, Size
from mayfly.spec.yarn import NodeLabel, Queue, YarnPriority


class WorkersRange(Model):
    """How many workers. Equal numbers = fixed; else Dask adapts between them."""

    minimum: int = Field(validation_alias="min", ge=0, le=10_000, description="Fewest workers")
    maximum: int = Field(validation_alias="max", ge=1, le=10_000, description="Most workers")

    @model_validator(mode="after")
    def _ordered(self) -> WorkersRange:
        if self.minimum > self.maximum:
            raise ValueError(f"min ({self.minimum}) is more than max ({self.maximum}); swap them or raise max")
        return self

    def __str__(self) -> str:
        return str(self.minimum) if self.minimum == self.maximum else f"{self.minimum} to {self.maximum}"


def workers_of(value: object) -> object:
    """A whole number as an equal range; anything else as it is. ValueError when it can be no number of workers."""
    if isinstance(value, bool) or not isinstance(value, int | dict | WorkersRange):
        raise ValueError(f"expected a whole number or {{min: 1, max: 8}}, got {value!r}")
    if isinstance(value, int):
        if value < 1:
            raise ValueError(f"{value} workers can do nothing; write 1 or more, or {{min: 0, max: 8}} to adapt")
        return {"min": value, "max": value}
    return value


class WorkerSpec(Model):
    """One Dask worker process."""

    cores: int = Field(default=1, ge=1, le=512, description="Threads of a worker; each runs one task at a time")
    memory: Size = Field(default=4 * 10**9, description="Memory limit of a worker")


class JobYarn(Model):
    """What a job may choose where Dask runs on YARN; elsewhere it is carried, and the plan says that it is not used."""

    queue: Queue | None = Field(default=None, description="Queue of YARN; by default the target's")
    node_label: NodeLabel | None = Field(default=None, description="Only nodes with this label of YARN")
    priority: YarnPriority | None = Field(default=None, description="Within the queue; more comes first")


def settings_of(value: object) -> object:
    """Dask settings in their nested form."""
    return nested(value) if isinstance(value, dict) else value


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`: Dask's documentation writes dots, its files are nested. ValueError when a
    setting stands there twice."""
    result: dict[str, Any] = {}
    for dotted, value in settings.items():
        if dotted == "logging":  # below it are names of loggers, which have dots of their own
            _merge(result, {dotted: value})
            continue
        inner = nested(value) if isinstance(value, dict) else value
        for part in reversed(str(dotted).split(".")):
            inner = {part: inner}
        _merge(result, inner)
    return result


def _merge(into: dict[str, Any], new: dict[str, Any], *, above: str = "") -> None:
    for key, value in new.items():
        if key not in into:
            into[key] = value
        elif isinstance(into[key], dict) and isinstance(value, dict):
            _merge(into[key], value, above=f"{above}{key}.")
        else:
            raise ValueError(f"{above + key!r} is set twice; keep one")


class ClusterSpec(Model):
    """The Dask cluster a job asks for. A target may give less, and says so in the plan."""

    profile: str | None = Field(
        default=None, min_length=1, description="A name from config/profiles.yaml, whose values hold below these keys"
    )
    workers: Annotated[
        WorkersRange,
        BeforeValidator(workers_of, json_schema_input_type=Annotated[int, Field(ge=1, le=10_000)] | WorkersRange),
    ] = Field(default=WorkersRange(minimum=2, maximum=2), description="A number, or {min, max} to adapt to the load")
    worker: WorkerSpec = Field(default=WorkerSpec(), description="Size of each worker")
    dask: Annotated[dict[str, JsonValue], BeforeValidator(settings_of)] = Field(
        default={}, description='Dask settings, nested or with dots ("distributed.worker.memory.spill: 0.7")'
    )
    yarn: JobYarn = Field(default=JobYarn(), description="Where Dask runs on YARN: queue, node label, priority")
