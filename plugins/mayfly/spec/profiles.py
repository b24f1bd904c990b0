"""config/profiles.yaml: named beginnings of clusters, chosen by `cluster.profile` in job.yaml. Pure.

A profile is a part of `cluster` (and `start_timeout`). It is merged below the job's own keys before anything is parsed:
plan, driver and launcher see one cluster and know nothing of profiles.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue

from mayfly.spec.cluster import JobYarn, WorkersRange, nested, settings_of, workers_of
from mayfly.spec.fields import Duration, Model, Size, at_most

ProfileName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]


class ProfileWorker(Model):
    """What a profile says of a worker's size; the rest keeps its default."""

    cores: int | None = Field(default=None, ge=1, le=512, description="Threads of a worker")
    memory: Size | None = Field(default=None, description="Memory of a worker; on YARN the container's size")


class Profile(Model):
    """One profile: whatever it leaves out keeps its default. A job's own keys come first, each by itself."""

    description: str = Field(default="", description="For whom it is")
    workers: (
        Annotated[
            WorkersRange,
            BeforeValidator(workers_of, json_schema_input_type=Annotated[int, Field(ge=1, le=10_000)] | WorkersRange),
        ]
        | None
    ) = Field(default=None, description="A number, or {min, max} to adapt to the load")
    worker: ProfileWorker = Field(default=ProfileWorker(), description="Size of each worker")
    start_timeout: Annotated[Duration, at_most(86400)] | None = Field(
        default=None, description="Longest start, until the fewest workers are there"
    )
    dask: Annotated[dict[str, JsonValue], BeforeValidator(settings_of)] = Field(
        default={}, description='Dask settings, nested or with dots ("distributed.adaptive.wait-count: 24")'
    )
    yarn: JobYarn = Field(default=JobYarn(), description="Where Dask runs on YARN: queue, node label, priority")


class ProfilesFile(Model):
    """config/profiles.yaml."""

    profiles: dict[ProfileName, Profile] = Field(min_length=1, description="Profiles by name")


def merged(job: Mapping[str, Any], profile: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The content of a job.yaml with a profile's (as it stands in its file, and is right) below it; and what came from
    the profile, in words. What is wrong in the job stays in, to be told by whoever parses it.
    """
    given = {key: value for key, value in profile.items() if key not in ("description", "start_timeout")}
    own = job.get("cluster")
    cluster = dict(own) if isinstance(own, dict) else {}
    for side in (given, cluster):
        if isinstance(side.get("dask"), dict):
            try:
                side["dask"] = nested(side["dask"])
            except ValueError:
                return dict(job), ()
    result = {**job, "cluster": _merge(given, cluster)}
    words = [f"{key} {_shown(value)}" for key, value in _taken(given, cluster)]
    if "start_timeout" in profile and "start_timeout" not in job:
        result["start_timeout"] = profile["start_timeout"]
        words.append(f"start_timeout {profile['start_timeout']}")
    return result, tuple(words)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _taken(below: Mapping[str, Any], above: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each leaf of `below` that `above` leaves alone."""
    for key, value in below.items():
        if key not in above:
            leaves = (
                _taken(value, {}, f"{prefix}{key}.")
                if isinstance(value, Mapping) and value
                else ((prefix + key, value),)
            )
            yield from leaves
        elif isinstance(value, Mapping) and isinstance(above[key], Mapping):
            yield from _taken(value, above[key], f"{prefix}{key}.")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
