"""What the user asks for: job.yaml and targets.yaml as frozen, strict models.

Everything is parsed once, here: units become bytes and seconds, defaults are filled in, unknown keys are refused. This
module is pure; `mayfly.project` reads the files and turns errors into `SpecError` with file, line and key.

From a file (validation context `FROM_FILE`) sizes and durations need their units. In Python code plain numbers are
bytes and seconds: `WorkerSpec(cores=2, memory=4 * 10**9)`.
"""

from __future__ import annotations

import posixpath
import re
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    Strict,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from mayfly import cron, units
from mayfly.backends.base import BACKENDS
from mayfly.contract import FrozenTarget, Json, Timing
from mayfly.names import MAX_NAME, max_job_length
from mayfly.params import ParamSchema, check_schema

FROM_FILE: Final = {"from_file": True}
"""Validation context for values that come from a file: a size or a duration without a unit is refused."""

DEFAULT_PREFIX: Final = "mayfly"
BACKEND_OPTIONS: Final = {"local": ("state_dir",)}
"""What `options` of a target may hold, by backend; a backend that is not here checks its own."""

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


class KeyedError(ValueError):
    """What is wrong between several keys, told at one of them (dotted)."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


# ---------------------------------------------------------------- field types


def _size(value: object, info: ValidationInfo) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and info.context is not FROM_FILE:
        return value
    return units.parse_size(value)


def _duration(value: object, info: ValidationInfo) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and info.context is not FROM_FILE:
        return float(value)
    return units.parse_duration(value)


def _duration_or_off(value: object, info: ValidationInfo) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and info.context is not FROM_FILE:
        return float(value)
    return units.parse_duration(value, zero=True)


def _number_as_text(value: object) -> object:
    # An integer has one spelling; 1.10 and true have several, and the script would see another than was written.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("contains a NUL character, which no program argument or variable can hold")
    return value


_DURATION_SCHEMA: Final = {"type": "string", "pattern": units.DURATION_PATTERN, "examples": ["90m", "2h", "1h30m"]}
Size = Annotated[
    int,
    BeforeValidator(_size),
    Field(gt=0),
    WithJsonSchema({"type": "string", "pattern": units.SIZE_PATTERN, "examples": ["14 GB", "14 GiB", "512 MB"]}),
]
"""Bytes; "14 GB" in a file."""
Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0), WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds, more than 0; "90m" in a file."""


def _at_most(limit: float) -> AfterValidator:
    def check(value: float) -> float:
        if value > limit:
            raise ValueError(f"{units.format_duration(value)} is too long; at most {units.format_duration(limit)}")
        return value

    return AfterValidator(check)


DurationOrOff = Annotated[
    float,
    BeforeValidator(_duration_or_off),
    Field(ge=0),
    WithJsonSchema({"anyOf": [_DURATION_SCHEMA, {"enum": [0, "off"]}]}),
]
"""Seconds, 0 = off; "30m", 0 or "off" in a file."""
Text = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(_no_nul),
    WithJsonSchema({"type": ["string", "integer"]}),
]
Texts = Annotated[tuple[Text, ...], Strict(False)]
"""A list in a file."""


class _Model(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, validate_default=False
    )


# ---------------------------------------------------------------- cluster


class WorkersRange(_Model):
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


def _workers(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | dict | WorkersRange):
        raise ValueError(f"expected a whole number or {{min: 1, max: 8}}, got {value!r}")
    if isinstance(value, int):
        if value < 1:
            raise ValueError(f"{value} workers can do nothing; write 1 or more, or {{min: 0, max: 8}} to adapt")
        return {"min": value, "max": value}
    return value


class WorkerSpec(_Model):
    """One Dask worker process."""

    cores: int = Field(default=1, ge=1, le=512, description="Threads of a worker; each runs one task at a time")
    memory: Size = Field(default=4 * 10**9, description="Memory limit of a worker")


def _settings(value: object) -> object:
    return _nested(value) if isinstance(value, dict) else value


def _nested(settings: dict[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`: Dask's documentation writes dots, its files are nested."""
    result: dict[str, Any] = {}
    for dotted, value in settings.items():
        if dotted == "logging":  # below it are names of loggers, which have dots of their own
            _merge(result, {dotted: value})
            continue
        inner = _nested(value) if isinstance(value, dict) else value
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


class ClusterSpec(_Model):
    """The Dask cluster a job asks for. A target may give less, and says so in the plan."""

    workers: Annotated[
        WorkersRange,
        BeforeValidator(_workers, json_schema_input_type=Annotated[int, Field(ge=1, le=10_000)] | WorkersRange),
    ] = Field(default=WorkersRange(minimum=2, maximum=2), description="A number, or {min, max} to adapt to the load")
    worker: WorkerSpec = Field(default=WorkerSpec(), description="Size of each worker")
    dask: Annotated[dict[str, JsonValue], BeforeValidator(_settings)] = Field(
        default={}, description='Dask settings, nested or with dots ("distributed.worker.memory.spill: 0.7")'
    )


# ---------------------------------------------------------------- job


class AssetSchedule(_Model):
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
    _no_nul(value)
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


class JobFile(_Model):
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
    timeout: Annotated[Duration, _at_most(13 * 86400)] = Field(
        default=6 * 3600.0, description="Longest run of the script, per attempt"
    )
    start_timeout: Annotated[Duration, _at_most(86400)] = Field(
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

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        name, target = data.get("name"), data.get("target", "local")
        return {"script": f"{name}.py", **data, "targets": data.get("targets") or (target,)}


# ---------------------------------------------------------------- target


class PollStep(_Model):
    """Look every `every` until the wait is `until` old; without `until`, for ever."""

    every: Duration
    until: Duration = 1e12


class TimingSpec(_Model):
    """How often things happen on this target. Whoever is unsure leaves all of it out."""

    poll: Annotated[tuple[PollStep, ...], Strict(False)] | None = Field(default=None, min_length=1)
    poll_inline: Duration | None = None
    lease_ttl: Duration | None = Field(
        default=None, description="A job ends itself when Airflow was silent for so long"
    )
    lease_ttl_inline: Duration | None = None
    status: Duration | None = None
    segment: Duration | None = None
    stop_grace: Duration | None = Field(default=None, description="From SIGTERM to SIGKILL")

    def freeze(self, *, lease_ttl: float) -> Timing:
        """With Mayfly's defaults for whatever is not set; `lease_ttl` is the backend's."""
        given: dict[str, Any] = {key: getattr(self, key) for key in self.model_fields_set}
        steps = given.pop("poll", None)
        if steps:
            given["poll"] = tuple((step.until, step.every) for step in steps)
        return Timing(**{"lease_ttl": lease_ttl, **{key: value for key, value in given.items() if value is not None}})


_DOTTED: Final = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"


def _part(*known: str) -> AfterValidator:
    """One of the names Mayfly knows, or `module:Class` for a part that somebody else wrote."""

    def check(value: str) -> str:
        if value not in known and not re.fullmatch(_DOTTED, value):
            raise ValueError(f'{value!r} is not known; allowed: {", ".join(sorted(known))}, or "module:Class"')
        return value

    return AfterValidator(check)


def _prefix(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", value) or len(value) > 20:
        raise ValueError(
            f"{value!r} cannot begin a cluster name; use at most 20 lower-case letters, digits and hyphens between them"
        )
    return value


def _no_secret(options: dict[str, Any]) -> dict[str, Any]:
    for key, value in options.items():
        if re.search(r"password|passwd|secret|token|credential|private_key", key, re.IGNORECASE):
            raise ValueError(f"{key!r} looks like a secret; put it into an Airflow connection and name that")
        if isinstance(value, dict):
            _no_secret(value)
    return options


def _staging(value: str) -> str:
    if re.match(r"[A-Za-z0-9+.-]+://[^/]*:[^/]*@", value):
        raise ValueError("holds a password; put it into an Airflow connection and name that")
    if not value.strip() or value.startswith("~"):
        raise ValueError(
            f'{value!r} is no place; write a path (counted from the project) or a URL ("gs://bucket/mayfly")'
        )
    return value.rstrip("/") or "/"


class TargetFile(_Model):
    """One entry of config/targets.yaml: a place where clusters can be made."""

    backend: Annotated[str, _part(*BACKENDS)] = Field(
        description='What makes the clusters; "module:Class" for your own'
    )
    launcher: Annotated[str, _part("processes")] = Field(
        default="processes", description='What starts the Dask workers; "module:Class" for your own'
    )
    staging: Annotated[str, AfterValidator(_staging)] = Field(
        default=".mayfly/staging",
        description="Folder of all run directories: a path counted from the project, or a URL",
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default=DEFAULT_PREFIX, description="Beginning of all cluster names"
    )
    connection: str | None = Field(default=None, min_length=1, description="Id of an Airflow connection")
    python: str | None = Field(default=None, min_length=1, description="Interpreter of jobs; by default Airflow's own")
    max_workers: int | None = Field(default=None, ge=1, description="No job gets more workers than this")
    max_worker_memory: Size | None = Field(default=None, description="No worker gets more memory than this")
    options: Annotated[dict[str, JsonValue], AfterValidator(_no_secret)] = Field(
        default={}, description="Settings of the backend; see docs/targets.md"
    )
    timing: TimingSpec = Field(default=TimingSpec(), description="How often things happen")

    @model_validator(mode="after")
    def _known_options(self) -> TargetFile:
        known = BACKEND_OPTIONS.get(self.backend)
        for name in self.options:
            if known is not None and name not in known:
                raise KeyedError(
                    f"options.{name}", f"backend {self.backend} has no such option; allowed: {', '.join(known)}"
                )
        return self


class TargetSpec(TargetFile):
    """A target as the rest of Mayfly sees it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")

    def freeze(self, home: Path) -> FrozenTarget:
        """What later tasks of a run need to know, so that they never read config/ again. `home` is the project."""
        # Not as_uri(): whoever reads file:// URLs here and in fsspec takes them literally, without %20.
        staging = self.staging if "://" in self.staging else f"file://{(home / self.staging).absolute()}"
        # A bare command is looked up on PATH; anything with a slash counts from the project. Links stay as they
        # are: a virtual environment's interpreter is one.
        python = str((home / self.python).absolute()) if self.python and "/" in self.python else self.python
        options: dict[str, Json] = dict(self.options)
        return FrozenTarget(
            name=self.name,
            backend=self.backend,
            launcher=self.launcher,
            staging=staging,
            prefix=self.prefix,
            connection=self.connection,
            python=python,
            max_workers=self.max_workers,
            max_worker_memory=self.max_worker_memory,
            options=options,
            timing=self.timing.freeze(lease_ttl=600.0 if self.backend == "local" else 3600.0),
        )


class TargetsFile(_Model):
    """config/targets.yaml."""

    targets: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")], TargetFile] = Field(
        min_length=1, description="Targets by name"
    )


def json_schema(model: type[BaseModel], *, title: str) -> dict[str, Any]:
    """The JSON schema of a file, for editors: defaults as they would be written in it."""
    schema = model.model_json_schema(mode="validation", by_alias=True)
    for node in [schema, *schema["$defs"].values()]:
        for field in node.get("properties", {}).values():
            _tidy(field)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def _tidy(field: dict[str, Any]) -> None:
    field.pop("title", None)
    default = field.get("default")
    if isinstance(default, dict) or default in (None, "", []):
        field.pop("default", None)  # says nothing, or is told by the keys below it
    elif isinstance(default, (int, float)) and units.SIZE_PATTERN in _patterns(field):
        field["default"] = units.format_size(default)
    elif isinstance(default, (int, float)) and units.DURATION_PATTERN in _patterns(field):
        field["default"] = units.format_duration(default)


def _patterns(field: dict[str, Any]) -> list[str]:
    return [part["pattern"] for part in (field, *field.get("anyOf", [])) if "pattern" in part]
