"""What Mayfly itself costs: starting the command, importing a poke, and a whole run of a job that does nothing.

    make bench        (or: python benchmarks/overhead.py [RUNS])

Prints medians; nothing here is a test, since times belong to the machine they were taken on.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mayfly.inventory import list_runs
from mayfly.lifecycle import Handle, Run
from mayfly.project import Project

JOB = "cluster: {workers: 1, worker: {cores: 1, memory: 600 MB}}\n"
SCRIPT = "from dask.distributed import Client\nif __name__ == '__main__':\n    Client().submit(len, 'x').result()\n"


def seconds(call: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def python(*arguments: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def main(runs: int) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; medians, seconds")
    bare = seconds(python("-c", "pass"), 5)
    print(f"{bare:8.2f}  python -c pass")
    for name in ("mayfly.cli", "mayfly.lifecycle", "mayfly.project", "mayfly.reporting"):
        print(f"{seconds(python('-c', f'import {name}'), 5) - bare:8.2f}  import {name} (above that)")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "config").mkdir()
        (home / "jobs" / "nothing").mkdir(parents=True)
        (home / "jobs" / "nothing" / "job.yaml").write_text(JOB)
        (home / "jobs" / "nothing" / "nothing.py").write_text(SCRIPT)
        os.environ |= {"MAYFLY_HOME": folder, "MAYFLY_STATE_DIR": str(home / "state")}
        whole = seconds(python("-m", "mayfly.cli", "run", "nothing"), runs)
        print(f"{whole:8.2f}  mayfly run nothing, {runs} times, of it:")
        target = Project(home).frozen_target("local")
        records = [Run.open(Handle(name=item.name, target=target)).records()[0] for item in list_runs(target)]
        for phase in records[0].phases:
            print(f"{statistics.median(record.phases.get(phase, 0.0) for record in records):12.2f}  {phase}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
