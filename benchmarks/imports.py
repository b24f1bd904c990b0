"""What starting costs: the imports of a poke above `airflow.sdk`, a whole first poke, and the command line.

A poke is a process that Airflow starts every few seconds for every waiting task; `airflow.sdk` it has imported anyway.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from common import airflow_home  # before anything of Airflow
from common.pairs import Series, Table, pairs_wanted
from common.runs import TWO_WORKERS, create, delete, planned, project

from mayfly.steps.lifecycle import Handle

POKE = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
began = time.perf_counter()
from airflow.sdk import DAG, Asset, BaseOperator, BaseOperatorLink, Param, TaskGroup, TriggerRule, get_parsing_context
with DAG("any", schedule=None):  # what every DAG file makes Airflow import
    BaseOperator(task_id="any")
sdk = time.perf_counter()
import mayfly.airflow.factory, mayfly.airflow.operators, mayfly.steps.lifecycle, mayfly.backends.local
import mayfly.project.loading
imported = time.perf_counter()
found = {"__file__": sys.argv[1]}
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), found)
task = found["bench"].get_task("cluster.create_cluster")
read = time.perf_counter()
from mayfly.steps.lifecycle import Handle, Run
assert Run.open(Handle.from_json(json.loads(sys.argv[2]))).create("benchmark").done
done = time.perf_counter()
json.dump({"sdk": sdk - began, "imports": imported - sdk, "dag": read - imported, "poke": done - read}, sys.stdout)
"""
COMMAND_LINE = (
    "mayfly.cli.main",
    "mayfly.project.loading",
    "mayfly.steps.lifecycle",
    "mayfly.steps.reporting",
    "mayfly.driver.supervisor",
)
IMPORT = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"


def main() -> None:
    pairs = pairs_wanted()
    parts: Series = {}
    modules: Series = {name: [] for name in COMMAND_LINE}
    with project(TWO_WORKERS, "") as home:
        dag_file = home / "dags" / "jobs.py"
        dag_file.parent.mkdir()
        dag_file.write_text((airflow_home.ROOT / "dags" / "jobs.py").read_text())
        run = planned(home)
        create(run)
        handle = json.dumps(Handle(name=run.plan.name, target=run.plan.target).to_json())
        for number in range(pairs + 1):
            found = json.loads(_python(POKE, str(dag_file), handle))
            took = {name: float(_python(IMPORT.format(name))) for name in COMMAND_LINE}
            if number:  # the first compiles
                for name, seconds in found.items():
                    parts.setdefault(name, []).append(seconds)
                for name, seconds in took.items():
                    modules[name].append(seconds)
            print(".", end="", file=sys.stderr, flush=True)
        delete(run)
    print(file=sys.stderr)
    table = Table(f"a poke's process (Airflow {airflow_home.version()})", pairs=pairs)
    table.value("import airflow.sdk, and a DAG of one operator", parts["sdk"], "s")
    table.bound("imports of a poke above that", parts["imports"], "s", most=0.5)
    table.value("its DAG, read from dags/jobs.py", [1000 * s for s in parts["dag"]], "ms")
    table.value("the poke itself (create_cluster on a running cluster)", [1000 * s for s in parts["poke"]], "ms")
    for name, seconds in modules.items():
        table.value(f"import {name}, alone", [1000 * s for s in seconds], "ms")


def _python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=_task_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def _task_environment() -> dict[str, str]:
    """As a task's process has it: Airflow says which DAG is wanted."""
    wanted = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "bench", "_AIRFLOW_PARSING_CONTEXT_TASK_ID": "cluster.create_cluster"}
    return {**os.environ, **wanted}


if __name__ == "__main__":
    main()
