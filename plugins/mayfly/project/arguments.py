"""A job's params and arguments without Airflow: typed values from text, and templates filled in. Pure.

Templates see the same names as in Airflow: params, inputs, outputs, run_date, run_id, job, target. What only Airflow
knows (`ds`, `ti`, macros, results of other tasks) is refused with the list of what is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mayfly.contract import Plan
from mayfly.errors import InputError
from mayfly.project import explain
from mayfly.project.rendering import Names, as_arguments, is_template, render
from mayfly.spec.job import JobSpec
from mayfly.spec.params import problem_with


def parse_params(job: JobSpec, given: Iterable[str]) -> dict[str, Any]:
    """The values of a job's params: its defaults, and `given` ("name=value") over them, checked against their schemas.

    Text stays text where the schema takes text; anything else is read as JSON. InputError names the param, what was
    given and what is allowed.
    """
    values = {name: schema["default"] for name, schema in job.params.items() if "default" in schema}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"--param {pair}: write it as name=value")
        if name not in job.params:
            raise InputError(
                f"--param {pair}: job {job.name!r} has no param {name!r}; {explain.choices(name, job.params)}"
            )
        values[name] = _value(name, text, job.params[name])
    missing = [name for name in job.params if name not in values]
    if missing:
        needed = " ".join(f"--param {name}=..." for name in missing)
        raise InputError(f"job {job.name!r}: {', '.join(missing)} has no default; give it: {needed}")
    return values


def _value(name: str, text: str, schema: Mapping[str, Any]) -> Any:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    value: Any = text
    if "string" not in kinds:
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text  # the check below says what was expected
        if kinds and "number" not in kinds and isinstance(value, float) and value.is_integer():
            value = int(value)
        if not kinds and value not in schema.get("enum", [value]):
            value = text
    problem = problem_with(value, schema)
    if problem:
        hint = "; write true or false" if kinds == ["boolean"] else ""
        raise InputError(f"--param {name}={text}: {problem}{hint}")
    return value


def render_args(job: JobSpec, *, plan: Plan, params: Mapping[str, Any], run_date: str) -> tuple[str, ...]:
    """The strings that the script gets. InputError says which argument's template fails, and why."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, extensions=["jinja2.ext.do"])
    context = {
        "params": dict(params),
        "inputs": Names("inputs", lambda: plan.inputs),
        "outputs": Names("outputs", lambda: plan.outputs),
        "run_date": run_date,
        "run_id": plan.identity.run_id,
        "job": job.name,
        "target": plan.target.name,
    }
    rendered = []
    for index, text in enumerate(job.args):
        try:
            rendered.append(render(text, context, environment) if is_template(text) else text)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise InputError(
                f"job {job.name!r}: args[{index}] ({text!r}): {error}; without Airflow there are {', '.join(context)}"
            ) from error
    return as_arguments(rendered, job=job.name)
