"""Every jobs/<name>/job.yaml becomes a DAG.

A DAG file (dags/jobs.py) says `build_dags(globals())`. Reading is pure: nothing but jobs/ and config/ is touched, and
no Dask, pandas or cloud SDK is imported. A broken job must not take the others with it, and Airflow marks *all* DAGs of
a file stale that has an import error; so a file of its own, dags/broken_jobs.py, raises one error that names them all.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, Param, get_parsing_context

from mayfly.airflow.taskgroup import dask_cluster
from mayfly.errors import InputError, SpecError
from mayfly.project.loading import Project

if TYPE_CHECKING:
    from mayfly.spec.job import JobSpec

GROUP = "cluster"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
"""Where a schedule without start_date counts from. Fixed: a moving date would make a new DAG version at each parse."""


def build_dags(namespace: MutableMapping[str, Any], project: Project | None = None) -> None:
    """Put a DAG for each good job into a DAG file's `globals()`. In a task, only the task's own."""
    project = project or _project_of(namespace)
    wanted = get_parsing_context().dag_id
    good, _ = _good_and_broken(project, wanted=wanted)
    namespace.update(good)


def raise_broken_jobs(namespace: Mapping[str, Any], project: Project | None = None) -> None:
    """BrokenJobs when a job (or config/targets.yaml) is wrong: Airflow shows it as this file's import error."""
    if get_parsing_context().dag_id is not None:
        return  # a task runs; whatever is broken is not it
    _, broken = _good_and_broken(project or _project_of(namespace))
    if broken:
        raise BrokenJobs("\n\n".join(["no DAG was made for these; all others are there:", *map(str, broken)]))


class BrokenJobs(InputError):
    """Some job.yaml cannot be used; the message has file, line, key and the allowed values of each."""


def _project_of(namespace: Mapping[str, Any]) -> Project:
    return Project.find(Path(namespace["__file__"]).parent)


def _good_and_broken(project: Project, *, wanted: str | None = None) -> tuple[dict[str, DAG], list[Exception]]:
    jobs, broken = _read(project, wanted=wanted)
    good: dict[str, DAG] = {}
    for name, job in jobs.items():
        try:
            good[name] = make_dag(job)
            good[name].validate()
        except Exception as error:  # Airflow's own refusal (of a param's schema, of an asset's name, ...)
            good.pop(name, None)
            broken.append(
                SpecError(f"Airflow refuses it: {type(error).__name__}: {error}", file=f"jobs/{name}/job.yaml")
            )
    return good, broken


def _read(project: Project, *, wanted: str | None) -> tuple[Mapping[str, JobSpec], list[Exception]]:
    if wanted is not None:
        if wanted not in project.job_names():
            return {}, []
        try:
            return {wanted: project.job(wanted)}, []
        except SpecError:  # perhaps only config/targets.yaml is wrong: running clusters must still be deleted
            jobs, _ = project.jobs()
            return {name: job for name, job in jobs.items() if name == wanted}, []
    jobs, errors = project.jobs()
    return jobs, list(errors)


def make_dag(job: JobSpec) -> DAG:
    """The DAG of one job; its id is the job's name."""
    scheduled = job.schedule is not None
    with DAG(
        job.name,
        description=(job.description.strip().splitlines() or [None])[0],
        doc_md=_doc(job),
        schedule=_schedule(job),
        start_date=job.start_date or (LONG_AGO if scheduled else None),
        catchup=job.catchup,
        max_active_runs=job.max_active_runs,
        tags=sorted({*job.tags, "mayfly"}),
        default_args={"owner": job.owner},
        params=_params(job),
        # Nothing runs by itself without a schedule, so there is nothing that a pause would protect from.
        is_paused_upon_creation=None if scheduled else False,
        auto_register=False,
    ) as dag:
        target = "{{ params.target }}" if len(job.targets) > 1 else job.target
        with dask_cluster(job, target=target, group_id=GROUP) as cluster:
            cluster.run(inlets=_assets(job.inputs), outlets=_assets(job.outputs))
    return dag


def _schedule(job: JobSpec) -> Any:
    if job.schedule is None or isinstance(job.schedule, str):
        return job.schedule
    return [Asset(uri) for uri in job.schedule.assets]


def _assets(places: Mapping[str, str]) -> list[Asset]:
    """Airflow takes ASCII alone as an asset's name; a place with other letters works, but is no asset."""
    return [Asset(place) for place in places.values() if place.isascii()]


def _params(job: JobSpec) -> dict[str, Param]:
    params: dict[str, Any] = {}
    if len(job.targets) > 1:
        params["target"] = Param(
            job.target, type="string", enum=list(job.targets), title="Target", description="Where the cluster is made"
        )
    for name, schema in job.params.items():
        rest = dict(schema)
        # Param() without a default means "must be given"
        given = {"default": rest.pop("default")} if "default" in rest else {}
        params[name] = Param(**given, **rest)
    return params


def _doc(job: JobSpec) -> str:
    workers = job.cluster.workers
    count = str(workers.minimum) if workers.minimum == workers.maximum else f"{workers.minimum} to {workers.maximum}"
    size = f"{job.cluster.worker.cores} cores / {job.cluster.worker.memory / 1e9:.3g} GB"
    facts = {
        "script": f"`jobs/{job.name}/{job.script}`",
        "cluster": f"{count} workers x {size}" + (f", profile `{job.cluster.profile}`" if job.cluster.profile else ""),
        "targets": ", ".join(f"`{name}`" for name in job.targets),
        "limits": f"run {_duration(job.timeout)}, start {_duration(job.start_timeout)}, {job.retries} retries",
        **{f"input {name}": f"`{place}`" for name, place in job.inputs.items()},
        **{f"output {name}": f"`{place}`" for name, place in job.outputs.items()},
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())])
    return f"{job.description.strip()}\n\n{table}\n\nThe cluster lives exactly as long as the run.".strip()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{number} {unit}" for number, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if number]
    return " ".join(parts) or "0 s"
