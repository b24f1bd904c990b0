"""What the user asks for: job.yaml (here) and targets.yaml (`mayfly.spec.target`) as frozen, strict models.

Everything is parsed once, here: units become bytes and seconds, defaults are filled in, unknown keys are refused. This
module is pure; `mayfly.project.loading` reads the files and turns errors into `SpecError` with file, line and key.
"""

from __future__ import annotations

import posixpath
import re
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from mayfly.names import MAX_NAME, max_job_length
from mayfly.spec import cron
from mayfly.spec.cluster import ClusterSpec, WorkerSpec, WorkersRange
from mayfly.spec.fields import FROM_FILE, Duration, DurationOrOff, KeyedError, Model, Size, Text, Texts, at_most, no_nul
from mayfly.spec.notify import NotifySpec
from mayfly.spec.params import ParamSchema, check_schema
from mayfly.spec.target import DEFAULT_PREFIX, TargetsFile, TargetSpec

__all__ = [
    "FROM_FILE",
    "AssetSchedule",
    "ClusterSpec",
    "JobFile",
    "JobSpec",
    "NotifySpec",
    "TargetSpec",
    "TargetsFile",
    "WorkerSpec",
    "WorkersRange",
    "check_job_name",
]

RESERVED_ENV: Final = ("DASK_CONFIG", "DASK_SCHEDULER_ADDRESS", "PYTHONPATH")
"""Set by Mayfly for script, scheduler and workers; so is everything that begins with MAYFLY_."""
RESERVED_PARAMS: Final = ("target",)
"""Fields that Mayfly adds to the trigger form itself."""


def check_job_name(name: str, *, prefix: str = DEFAULT_PREFIX) -> str:
    """The name itself; ValueError when it cannot become part of a cluster name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", name):
        raise ValueError(
            f"{name!r} is no job name; use lower-case letters, digits and single hyphens or underscores between them, "
            'and begin with a letter, as in "daily-trips" (the name of the folder is the name of the job)'
        )
    if len(name) > max_job_length(prefix):
        raise ValueError(
            f"{name!r} has {len(name)} characters; at most {max_job_length(prefix)} fit into a cluster name "
            f'("{prefix}-<job>-<10 digits>" may have {MAX_NAME}). Rename the folder'
        )
    return name


class AssetSchedule(Model):
    """Run when all of these assets were updated."""

    assets: Annotated[tuple[str, ...], Strict(False)] = Field(
        min_length=1, description="URIs of Airflow assets, such as the outputs of other jobs"
    )


def _schedule(value: object) -> object:
    if isinstance(value, str):
        return cron.check(value)
    if not (value is None or isinstance(value, dict | AssetSchedule)):
        raise ValueError(f'expected a cron text, a preset such as "@daily", or {{assets: [...]}}, got {value!r}')
    return value


def _start_date(value: object) -> object:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise ValueError(f'{value!r} is no date; write it as "2026-01-31" or "2026-01-31T06:00:00+01:00"')
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _script(value: str) -> str:
    path = PurePosixPath(value)
    if "\\" in value or path.is_absolute() or ".." in path.parts or path.suffix != ".py":
        raise ValueError(
            f"{value!r} is no script; write the path of a .py file inside the job's folder, with forward slashes"
        )
    return posixpath.normpath(value)


def _place(value: str) -> str:
    no_nul(value)
    if "{{" in value or "{%" in value:
        raise ValueError(
            f"{value!r}: inputs and outputs are fixed places (they become assets); put what changes into args, "
            'as in "{{ outputs.table }}/date={{ run_date }}"'
        )
    if not value.strip() or value.startswith("~"):
        raise ValueError(f"{value!r} is no place; write a URI or a path (without a scheme it counts from the project)")
    return value


def _field_name(value: str) -> str:
    # Templates read these as attributes, where a dictionary's own methods come first.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) or hasattr(dict, value):
        raise ValueError(
            f"{value!r} cannot be used in templates; use letters, digits and underscores, and none of "
            "clear, copy, get, items, keys, pop, popitem, setdefault, update, values"
        )
    return value


def _param_name(value: str) -> str:
    if value in RESERVED_PARAMS:
        raise ValueError("the trigger form has a field of this name already; choose another")
    return _field_name(value)


def _env_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f"{value!r} is no variable name; use letters, digits and underscores")
    if value in RESERVED_ENV or value.startswith("MAYFLY_"):
        raise ValueError(f"{value!r} is set by Mayfly itself; remove it")
    return value


Places = dict[Annotated[str, AfterValidator(_field_name)], Annotated[str, AfterValidator(_place)]]


class JobFile(Model):
    """jobs/<name>/job.yaml. Every key is optional; the name of the folder is the name of the job."""

    description: str = Field(default="", description="Shown in the UI; Markdown")
    owner: str = Field(default="mayfly", min_length=1, description="Person or team, shown in the UI")
    tags: Annotated[tuple[str, ...], Strict(False)] = Field(default=(), description="For finding the DAG in the UI")
    schedule: Annotated[
        str | AssetSchedule | None, BeforeValidator(_schedule, json_schema_input_type=str | AssetSchedule | None)
    ] = Field(
        default=None, description='Cron ("0 6 * * 1-5", UTC), preset ("@daily") or {assets: [...]}; none = by hand'
    )
    start_date: Annotated[datetime | None, BeforeValidator(lambda value: value and _start_date(value))] = Field(
        default=None, description='First day of the schedule, "2026-01-31"; UTC unless it says otherwise'
    )
    catchup: bool = Field(default=False, description="Also run the intervals since start_date that were missed")
    max_active_runs: int = Field(default=1, ge=1, le=1000, description="Runs at once; each has a cluster of its own")
    script: Annotated[str, AfterValidator(_script)] = Field(
        default="", description="Python file in the job's folder; by default <name>.py", validate_default=False
    )
    args: Texts = Field(
        default=(),
        description="Script arguments; templates: {{ params.x }}, {{ inputs.x }}, {{ outputs.x }}, {{ run_date }}",
    )
    env: dict[Annotated[str, AfterValidator(_env_name)], Text] = Field(
        default={}, description="Environment variables of script, scheduler and workers. Never secrets"
    )
    params: dict[Annotated[str, AfterValidator(_param_name)], Annotated[ParamSchema, AfterValidator(check_schema)]] = (
        Field(default={}, description="Fields of the trigger form, each a JSON schema with a default")
    )
    target: str = Field(default="local", min_length=1, description="Where to run: a name from config/targets.yaml")
    targets: Annotated[tuple[str, ...], Strict(False)] = Field(
        default=(), description="Targets that may be chosen at trigger; by default only `target`"
    )
    cluster: ClusterSpec = Field(default=ClusterSpec(), description="The Dask cluster")
    inputs: Places = Field(
        default={}, description="Named URIs or paths to read; checked from every worker before the run"
    )
    outputs: Places = Field(default={}, description="Named URIs or paths to write; become Airflow assets")
    timeout: Annotated[Duration, at_most(13 * 86400)] = Field(
        default=6 * 3600.0, description="Longest run of the script, per attempt"
    )
    start_timeout: Annotated[Duration, at_most(86400)] = Field(
        default=1800.0, description="Longest start of cluster and Dask"
    )
    stall_timeout: DurationOrOff = Field(
        default=1800.0, description="End a run that has done nothing for so long; 0 = off"
    )
    retries: int = Field(default=1, ge=0, le=10, description="New attempts after failures that a retry may cure")
    script_memory: Size | None = Field(default=None, description="Memory limit of the script's own processes")
    adopt: bool = Field(
        default=True, description="Make Client(n_workers=4), LocalCluster() and the like use the run's cluster"
    )
    notify: Annotated[tuple[NotifySpec, ...], Strict(False)] = Field(
        default=(), description="Notifiers of Airflow that are told once how a run ended"
    )

    @model_validator(mode="after")
    def _together(self) -> JobFile:
        if self.targets and self.target not in self.targets:
            raise KeyedError(
                "target", f"{self.target!r} is not among targets ({', '.join(self.targets)}); add it there"
            )
        if len(set(self.targets)) < len(self.targets):
            raise KeyedError("targets", "holds a name twice; remove one")
        if self.catchup and (self.schedule is None or self.start_date is None):
            raise KeyedError("catchup", "needs a schedule and a start_date to count from; add them")
        if self.schedule == "@continuous" and self.max_active_runs != 1:
            raise KeyedError("max_active_runs", "must be 1 with schedule @continuous")
        for name, schema in self.params.items():
            if self.schedule is not None and "default" not in schema:
                raise KeyedError(f"params.{name}", "has no default, so a scheduled run cannot know it; add one")
        return self


class JobSpec(JobFile):
    """A job as the rest of Mayfly sees it. `targets` always holds `target`; sizes are bytes, durations seconds."""

    name: Annotated[str, AfterValidator(check_job_name)]
    folder: Path
    from_profile: tuple[str, ...] | None = None
    """What the profile gave and the job does not say itself, in words; None when no profile was read."""
    profile_problem: str = ""
    """Why the job's profile could not be read: it is shown, and its plan fails."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        name, target = data.get("name"), data.get("target", "local")
        return {"script": f"{name}.py", **data, "targets": data.get("targets") or (target,)}

    @model_validator(mode="after")
    def _profile_was_read(self) -> JobSpec:
        if self.cluster.profile is not None and self.from_profile is None and not self.profile_problem:
            raise KeyedError(
                "cluster.profile",
                "profiles are for jobs with a job.yaml; read it by Project (mayfly.project.loading), or write them out",
            )
        return self
