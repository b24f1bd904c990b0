"""Reading 1000 jobs: job.yaml -> DAGs, against a loop written by hand, against dag-factory, and for one task alone.

The hand-written loop makes the same tasks with the same wiring from one spec that it has in hand: it reads no file.
dag-factory reads 1000 YAML files that say about as much: one DAG each, six BashOperators in a task group, in a row. It
is no dependency of ours; it is installed into a temporary folder, where the package index has it.

Imports are not measured here (see imports.py). Every measurement is a fresh fork.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import airflow_home  # before anything of Airflow
from common.forks import in_fork
from common.hand_written import hand_written
from common.pairs import Table, interleave, pairs_wanted, ratios

JOBS = 1000
DAG_FACTORY = "dag-factory==1.1.0"
JOB = """\
description: Daily figures, number {number}
owner: data
tags: [daily]
schedule: "{minute} 6 * * *"
start_date: "2026-01-31"
args: ["--date", "{{{{ run_date }}}}", "--out", "{{{{ outputs.table }}}}"]
outputs: {{table: data/{number}}}
params:
  rows: {{type: integer, default: 100, minimum: 1}}
cluster: {{workers: 2, worker: {{cores: 1, memory: 1 GB}}}}
timeout: 2 h
retries: 1
"""
THEIRS = """\
job_{number}:
  description: Daily figures, number {number}
  default_args: {{owner: data, start_date: 2026-01-31, retries: 1}}
  tags: [daily]
  schedule: "{minute} 6 * * *"
  catchup: false
  params: {{rows: 100}}
  task_groups:
    - {{group_name: cluster}}
  tasks:
"""
TASKS = ("plan", "create_cluster", "run_job", "collect_metrics", "delete_cluster", "report")


def write_ours(home: Path) -> None:
    (home / "config").mkdir(parents=True)
    for number in range(JOBS):
        folder = home / "jobs" / f"job-{number}"
        folder.mkdir(parents=True)
        (folder / "job.yaml").write_text(JOB.format(number=number, minute=number % 60))
        (folder / f"job-{number}.py").touch()


def write_theirs(folder: Path) -> None:
    folder.mkdir()
    for number in range(JOBS):
        text = THEIRS.format(number=number, minute=number % 60)
        for earlier, name in zip((None, *TASKS), TASKS, strict=False):
            after = f", dependencies: [{earlier}]" if earlier else ""
            text += (
                f"    - {{task_id: {name}, operator: airflow.providers.standard.operators.bash.BashOperator, "
                f'bash_command: "echo {{{{{{{{ run_id }}}}}}}}", task_group_name: cluster{after}}}\n'
            ).replace("{{{{ run_id }}}}", "{{ run_id }}")
        (folder / f"job_{number}.yml").write_text(text)


def install_dag_factory(folder: Path) -> bool:
    """Beside Airflow, without touching the environment; its other requirements are Airflow's own."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), DAG_FACTORY],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        print(f"{DAG_FACTORY} cannot be installed here: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return False
    sys.path.append(str(folder))
    return True


def counted(build: Callable[[dict[str, object]], object], *, wanted: int) -> Callable[[], float]:
    """Seconds for `build`, in a fork; it must have made so many DAGs of six tasks."""

    def run() -> float:
        from airflow.sdk import DAG

        found: dict[str, object] = {}
        began = time.perf_counter()
        build(found)
        seconds = time.perf_counter() - began
        dags = [value for value in found.values() if isinstance(value, DAG)]
        if len(dags) != wanted or any(len(dag.tasks) != len(TASKS) for dag in dags):
            raise RuntimeError(f"{len(dags)} DAGs were built, {wanted} are wanted; tasks: {len(dags[0].tasks)}")
        return seconds

    return in_fork(run)


def main() -> None:
    pairs = pairs_wanted()
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as folder:
        home, theirs = Path(folder) / "project", Path(folder) / "yaml"
        write_ours(home)
        write_theirs(theirs)
        from airflow.sdk.definitions import context  # noqa: F401 - the guard's module, imported before the clock runs

        from mayfly.airflow.factory import build_dags
        from mayfly.project.loading import Project

        project = Project(home)
        spec = project.job("job-0")

        def in_a_task(found: dict[str, object]) -> None:
            import os

            os.environ["_AIRFLOW_PARSING_CONTEXT_DAG_ID"] = "job-500"
            os.environ["_AIRFLOW_PARSING_CONTEXT_TASK_ID"] = "cluster.run_job"
            build_dags(found, project)

        ways = {
            "mayfly": counted(lambda found: build_dags(found, project), wanted=JOBS),
            "hand": counted(lambda found: found.update(hand_written(spec, JOBS)), wanted=JOBS),
            "task": counted(in_a_task, wanted=1),
        }
        if install_dag_factory(Path(folder) / "site"):
            from dagfactory import load_yaml_dags

            ways["dag-factory"] = counted(
                lambda found: load_yaml_dags(globals_dict=found, dags_folder=str(theirs)), wanted=JOBS
            )
        series = interleave(ways, pairs=pairs)
    table = Table(f"{JOBS} jobs -> DAGs (Airflow {airflow_home.version()})", pairs=pairs)
    table.value(f"Mayfly, {JOBS} job.yaml", series["mayfly"], "s")
    table.value("the same tasks from a hand-written loop, no file read", series["hand"], "s")
    table.bound("Mayfly / hand-written loop", ratios(series["mayfly"], series["hand"]), "x", most=1.5)
    if "dag-factory" in series:
        table.value(f"{DAG_FACTORY}, {JOBS} YAML files", series["dag-factory"], "s")
        table.bound("dag-factory / Mayfly", ratios(series["dag-factory"], series["mayfly"]), "x", least=2)
    table.value("one of them, read in a task", [1000 * s for s in series["task"]], "ms")
    table.bound("one in a task / all of them", ratios(series["task"], series["mayfly"]), "x", most=0.1)


if __name__ == "__main__":
    main()
