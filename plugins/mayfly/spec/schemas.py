"""JSON schemas of job.yaml, profiles.yaml and targets.yaml, from which editors complete and check them. Pure."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from mayfly import units
from mayfly.spec.job import JobFile, TargetsFile
from mayfly.spec.profiles import ProfilesFile


def schemas() -> dict[str, str]:
    """File names below config/schemas/ and their content."""
    models: dict[str, tuple[type[BaseModel], str]] = {
        "job.schema.json": (JobFile, "jobs/<name>/job.yaml of Mayfly"),
        "profiles.schema.json": (ProfilesFile, "config/profiles.yaml of Mayfly"),
        "targets.schema.json": (TargetsFile, "config/targets.yaml of Mayfly"),
    }
    return {
        name: json.dumps(json_schema(model, title=title), indent=1, ensure_ascii=False) + "\n"
        for name, (model, title) in models.items()
    }


def json_schema(model: type[BaseModel], *, title: str) -> dict[str, Any]:
    """The JSON schema of a file, for editors: defaults as they would be written in it."""
    schema = model.model_json_schema(mode="validation", by_alias=True)
    if "WorkersRange" in schema["$defs"]:
        schema["$defs"]["WorkersRange"].pop("required")  # a profile may have the other end
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
