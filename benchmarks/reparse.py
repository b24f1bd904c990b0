"""A hundred re-parses of unchanged files, synchronised with a real metadata database as the dag-processor does it.

Five processes, since what changes a DAG from one parse to the next is mostly Python's hash seed, and that is new in
each. They count the versions in the end, and what was asked of connections, variables and the network while the files
were read. A file that asks, and that is another at each parse, comes first: the counters must see it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from common import airflow_home  # before anything of Airflow
from common.pairs import Table

PROCESSES, PARSES = 5, 20
RICH = """\
description: |
  Everything that ends up in a DAG.
owner: data
tags: [b, a, c]
schedule: {assets: [data/one, data/two]}
args: ["{{ params.rows }}", "{{ outputs.table }}"]
env: {B: "1", A: "2"}
params:
  rows: {type: integer, default: 100, minimum: 1}
  where: {type: string, enum: [north, south], default: north}
inputs: {z: data/z, a: data/a}
outputs: {table: data/table, other: data/other}
target: local
targets: [local, other]
"""
ASKS = """\
import contextlib, socket, time
from airflow.sdk import DAG, Variable
from airflow.sdk import BaseHook
from airflow.providers.standard.operators.empty import EmptyOperator
with contextlib.suppress(Exception):
    BaseHook.get_connection("asked")
Variable.get("asked", default=None)
with contextlib.suppress(OSError):
    socket.create_connection(("127.0.0.1", 9), timeout=1)
with DAG("asks", schedule=None, description=str(time.time_ns())):
    EmptyOperator(task_id="t")
"""


def versions() -> dict[str, int]:
    import sqlite3

    with sqlite3.connect(airflow_home.HOME / "airflow.db") as database:
        rows = database.execute("select dag_id, count(*) from dag_version group by dag_id").fetchall()
    return dict(rows)


def main() -> None:
    home, asked = airflow_home.HOME / "project", airflow_home.HOME / "asked.txt"
    shutil.copytree(airflow_home.ROOT / "jobs", home / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "config").mkdir()
    (home / "config" / "targets.yaml").write_text("targets: {local: {backend: local}, other: {backend: local}}\n")
    (home / "jobs" / "rich").mkdir()
    (home / "jobs" / "rich" / "job.yaml").write_text(RICH)
    (home / "jobs" / "rich" / "rich.py").touch()
    dags = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    asks = airflow_home.HOME / "asks"
    asks.mkdir()
    (asks / "asks.py").write_text(ASKS)
    shutil.copytree(airflow_home.ROOT / "dags", dags, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    os.environ |= {
        "MAYFLY_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parent),
        "RECORDING_FILE": str(asked),
        "AIRFLOW__SECRETS__BACKEND": "common.recording.Recording",
        # Else a parse within 30 s of the one before is not even compared.
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
    }
    airflow_home.migrate()
    control = child(asks, 3)
    seen = asked.read_text().split("\n")[:-1]
    if not control["connected"] or not {"connection asked", "variable asked"} <= set(seen) or versions() != {"asks": 3}:
        raise RuntimeError(f"the counters are blind: {control}, {seen}, {versions()}")
    asked.write_text("")
    found = [child(dags, PARSES) for _ in range(PROCESSES)]
    count = {name: number for name, number in versions().items() if name != "asks"}
    broken = {file: error for result in found for file, error in result["errors"].items()}
    if broken or not count:
        raise RuntimeError(f"not all files could be read: {broken}")
    questions = asked.read_text().split("\n")[:-1]
    table = Table(
        f"{PROCESSES * PARSES} re-parses of {len(count)} unchanged DAGs (Airflow {airflow_home.version()})",
        pairs=PROCESSES,
    )
    table.value("a parse of all files", [1000 * s for result in found for s in result["seconds"]], "ms")
    table.bound("versions of a DAG, at most", max(count.values()), "", most=1)
    table.bound("look-ups of connections and variables", len(questions), "", most=0)
    table.bound("connections made", sum(len(result["connected"]) for result in found), "", most=0)
    for problem in sorted(set(questions)) + [name for name, number in count.items() if number > 1]:
        print(f"  ! {problem}")


def child(folder: Path, times: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "common.parse_again", str(folder), str(times)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    print(".", end="", file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
