"""config/targets.yaml: the places where clusters can be made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, JsonValue, Strict, model_validator

from mayfly.backends.base import BACKENDS
from mayfly.contract import FrozenTarget, Json, Timing
from mayfly.gcp.spec import TargetGcp
from mayfly.spec.fields import Duration, KeyedError, Model, Size, no_secret
from mayfly.spec.yarn import TargetYarn

DEFAULT_PREFIX: Final = "mayfly"
BACKEND_OPTIONS: Final[dict[str, tuple[str, ...]]] = {"local": ("state_dir",), "dataproc": ()}
"""What `options` of a target may hold, by backend; a backend that is not here checks its own."""
TargetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]


class PollStep(Model):
    """Look every `every` until the wait is `until` old; without `until`, for ever."""

    every: Duration
    until: Duration = 1e12


class TimingSpec(Model):
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

    def freeze(self, **defaults: float) -> Timing:
        """With the target's `defaults`, else Mayfly's, for whatever is not set."""
        given: dict[str, Any] = {key: getattr(self, key) for key in self.model_fields_set}
        steps = given.pop("poll", None)
        if steps:
            given["poll"] = tuple((step.until, step.every) for step in steps)
        return Timing(**defaults | {key: value for key, value in given.items() if value is not None})


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


def _staging(value: str) -> str:
    if re.match(r"[A-Za-z0-9+.-]+://[^/]*:[^/]*@", value):
        raise ValueError("holds a password; put it into an Airflow connection and name that")
    if not value.strip() or value.startswith("~") or re.match(r"file://[^/]", value):
        raise ValueError(
            f'{value!r} is no place; write a path (counted from the project) or a URL ("gs://bucket/mayfly")'
        )
    return value.rstrip("/") or "/"


class TargetFile(Model):
    """One entry of config/targets.yaml: a place where clusters can be made."""

    backend: Annotated[str, _part(*BACKENDS)] = Field(
        description='What makes the clusters; "module:Class" for your own'
    )
    launcher: Annotated[str, _part("processes", "yarn")] = Field(
        default="processes", description='What starts the Dask workers; "module:Class" for your own'
    )
    staging: Annotated[str, AfterValidator(_staging)] = Field(
        default=".mayfly/staging",
        description="Folder of all run directories: a path counted from the project, or a URL",
    )
    data: Annotated[str, AfterValidator(_staging)] | None = Field(
        default=None, description="Where relative inputs and outputs of jobs are; by default the project's folder"
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default=DEFAULT_PREFIX, description="Beginning of all cluster names"
    )
    connection: str | None = Field(default=None, min_length=1, description="Id of an Airflow connection")
    python: str | None = Field(default=None, min_length=1, description="Interpreter of jobs; by default Airflow's own")
    max_workers: int | None = Field(default=None, ge=1, description="No job gets more workers than this")
    max_worker_memory: Size | None = Field(default=None, description="No worker gets more memory than this")
    options: Annotated[dict[str, JsonValue], AfterValidator(no_secret)] = Field(
        default={}, description="Settings of the backend; see docs/targets.md"
    )
    timing: TimingSpec = Field(default=TimingSpec(), description="How often things happen")
    waiting: Literal["auto", "deferred", "reschedule"] = Field(
        default="auto", description="How a task waits for its job; see docs/targets.md"
    )
    yarn: TargetYarn | None = Field(default=None, description="With `launcher: yarn`: how Dask runs there")
    gcp: TargetGcp | None = Field(
        default=None, description="With `backend: dataproc`: where and how clusters are made; see docs/gcp.md"
    )

    @model_validator(mode="after")
    def _yarn_where_it_is(self) -> TargetFile:
        if self.yarn is not None and self.launcher != "yarn":
            raise KeyedError("yarn", f"launcher {self.launcher} knows no YARN; remove it, or write `launcher: yarn`")
        return self

    @model_validator(mode="after")
    def _gcp_where_it_is(self) -> TargetFile:
        if self.gcp is not None and self.backend != "dataproc":
            raise KeyedError("gcp", f"backend {self.backend} is not on Google Cloud; remove it, or `backend: dataproc`")
        if self.backend != "dataproc":
            return self
        if self.gcp is None:
            raise KeyedError("gcp", "backend dataproc needs to know where: at least `gcp: {project: …, region: …}`")
        if not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^/\s?#*\[\]]+)*", self.staging):
            raise KeyedError(
                "staging",
                f"{self.staging!r} is no bucket that Dataproc's nodes could read; write a gs:// URL, as in "
                '"gs://data-prod-mayfly/staging"',
            )
        if self.python and "/" in self.python and not self.python.startswith("/"):
            raise KeyedError("python", f"{self.python!r} is no path on a node; write an absolute one, or leave it out")
        return self

    @model_validator(mode="after")
    def _known_options(self) -> TargetFile:
        known = BACKEND_OPTIONS.get(self.backend)
        for name in self.options:
            if known is not None and name not in known:
                raise KeyedError(
                    f"options.{name}",
                    f"backend {self.backend} has no such option; allowed: {', '.join(known) or 'none'}",
                )
        return self


class TargetSpec(TargetFile):
    """A target as the rest of Mayfly sees it."""

    name: TargetName

    def freeze(self, home: Path) -> FrozenTarget:
        """What later tasks of a run need to know, so that they never read config/ again. `home` is the project."""
        # Not as_uri(): whoever reads file:// URLs here and in fsspec takes them literally, without %20.
        staging = self.staging if "://" in self.staging else f"file://{(home / self.staging).absolute()}"
        # A bare command is looked up on PATH; anything with a slash counts from the project. Links stay as they
        # are: a virtual environment's interpreter is one.
        python = str((home / self.python).absolute()) if self.python and "/" in self.python else self.python
        options: dict[str, Json] = dict(self.options)
        defaults = {"lease_ttl": 600.0 if self.backend == "local" else 3600.0}
        # A look costs 2 ms in a folder. Each writes the lease, and an object store takes that once a second.
        defaults["poll_inline"] = 0.2 if staging.startswith("file://") else 1.0
        return FrozenTarget(
            name=self.name,
            backend=self.backend,
            launcher=self.launcher,
            staging=staging,
            data="" if self.data is None else self.data if "://" in self.data else str((home / self.data).absolute()),
            prefix=self.prefix,
            connection=self.connection,
            python=python,
            max_workers=self.max_workers,
            max_worker_memory=self.max_worker_memory,
            options=options,
            timing=self.timing.freeze(**defaults),
            waiting=self.waiting,
            yarn=(self.yarn or TargetYarn()).plan() if self.launcher == "yarn" else None,
            gcp=self.gcp.plan() if self.gcp else None,
        )


class TargetsFile(Model):
    """config/targets.yaml."""

    targets: dict[TargetName, TargetFile] = Field(min_length=1, description="Targets by name")
