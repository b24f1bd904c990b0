"""`mayfly new NAME`: a job that runs as it is, to be changed into one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from mayfly.errors import InputError
from mayfly.names import fold
from mayfly.project.loading import JOB_FILE, Project
from mayfly.project.validate import module_owner, write_schemas
from mayfly.spec.job import check_job_name


def create_job(project: Project, name: str) -> list[str]:
    """`new_job`, and lines for people: what was written and what to do next."""
    written = new_job(project, name)
    return [
        *(f"wrote {path.relative_to(project.home).as_posix()}" for path in written),
        "",
        "It runs as it is; then change it into yours:",
        f"  mayfly plan {name}    shows what a run would make",
        f"  mayfly run {name}     runs it without Airflow",
        f"  python -m mayfly.airflow.dagstest {name}    runs it as its DAG",
        f"The DAG {name!r} appears in Airflow by itself. docs/jobs.md explains every key of {JOB_FILE}.",
    ]


def new_job(project: Project, name: str) -> list[Path]:
    """Write jobs/<name>/{job.yaml,<name>.py}; the files, in this order.

    InputError when the name cannot be a job's, is taken, or would give the same cluster names as another job.
    """
    try:
        check_job_name(name)
    except ValueError as error:
        raise InputError(str(error)) from error
    folder = project.home / "jobs" / name
    twin = next((other for other in project.job_names() if other != name and fold(other) == fold(name)), None)
    if twin is not None:
        raise InputError(
            f"job {name!r} would have the same cluster names as job {twin!r} (- and _ are one there); choose another"
        )
    module = name.replace("-", "_")
    # A script named like a module would be imported in its place: by Dask, pandas, anything.
    script = f"{module}_job.py" if module_owner(module) else f"{module}.py"
    targets = project.targets()
    target = "local" if "local" in targets else next(iter(targets))
    values = {"NAME": name, "SCRIPT": script, "MODULE": module, "TARGET": target}
    schemas = [] if (project.home / "config" / "schemas").is_dir() else write_schemas(project.home)
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise InputError(f"jobs/{name} exists already; choose another name, or change what is there") from error
    try:
        written = [folder / JOB_FILE, folder / script]
        for path, template in zip(written, (_JOB_YAML, _SCRIPT), strict=True):
            path.write_text(_filled(template, values), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"cannot write {folder}: {error}") from error
    return [*written, *schemas]


def _filled(template: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        template = template.replace(f"<{key}>", value)
    return template


_JOB_YAML = """\
# yaml-language-server: $schema=../../config/schemas/job.schema.json
# Every key is optional. docs/jobs.md explains them all; `mayfly validate <NAME>` checks this file.
description: Made-up taxi trips, counted by hour of the day
tags: [example]
# schedule: "0 6 * * *" # cron in UTC, a preset ("@daily") or {assets: [...]}; without it the job runs when triggered

script: <SCRIPT>
args: # what the script gets; the parts in braces are filled in for each run
  - "{{ outputs.by_hour }}"
  - --days={{ params.days }}

params: # become the form when the job is triggered
  days:
    type: integer
    title: Days of trips
    minimum: 1
    maximum: 365
    default: 30

outputs: # a path counts from the project's folder; gs://... and s3://... work, too
  by_hour: data/results/<NAME>

target: <TARGET> # a name from config/targets.yaml
cluster: # `profile: etl` would begin with the sizes of a profile from config/profiles.yaml
  workers: 2 # or {min: 1, max: 8} to follow the load
  worker: {cores: 1, memory: 1 GB}
timeout: 30m
"""

_SCRIPT = '''\
"""Made-up taxi trips, counted by hour of the day: ordinary Dask, to be replaced by your own.

Runs in a cluster of its own by `mayfly run <NAME>` or from Airflow, and as it is by

    python jobs/<NAME>/<SCRIPT> data/results/<NAME>
"""

import argparse

import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask.distributed import Client


def trips_of(day: int) -> pd.DataFrame:
    """One partition. Workers call this, so each reads (here: makes up) its own part of the data."""
    random = np.random.default_rng(day)  # seeded: a task that runs twice gives the same result
    count = 10_000
    return pd.DataFrame(
        {
            "hour": (random.normal(14, 5, count) % 24).astype("int64"),
            "distance_km": random.gamma(2.0, 2.5, count),
            "passengers": random.integers(1, 6, count),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", help="folder for the result, as Parquet")
    parser.add_argument("--days", type=int, default=30)
    options = parser.parse_args()

    with Client() as client:  # finds the run's cluster by itself; on a laptop it makes a small one
        print(client)
        trips = dd.from_map(trips_of, range(options.days))
        # 24 groups fit into one partition (split_out=1), so nothing needs to be shuffled
        by_hour = trips.groupby("hour").agg({"distance_km": "mean", "passengers": ["sum", "count"]}, split_out=1)
        by_hour.columns = ["distance_km", "passengers", "trips"]
        table = by_hour.compute().sort_index().reset_index()
        # Writing the same file again is harmless, so a retry is, too.
        dd.from_pandas(table, npartitions=1).to_parquet(options.output, write_index=False)
        print(table.round(1).to_string(index=False))


if __name__ == "__main__":
    main()
'''
