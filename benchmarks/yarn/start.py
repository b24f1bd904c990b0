"""From the driver's start to two workers ready, against what cannot be avoided: the time skein needs to submit an
application and to hear of its master, and the time one Dask worker needs to start by hand on this machine.

Also the memory of the Java processes that a run adds: skein's on the driver's machine, the master's on a node.
"""

from __future__ import annotations

import subprocess
import sys

from common.on_yarn import JOB, TARGETS, hadoop, worker_by_hand
from common.pairs import Table, interleave, pairs_wanted, ratios
from common.runs import create, delete, finish, planned, project

SCRIPT = """
import pathlib, sys
import os, psutil

cluster = os.environ["MAYFLY_CLUSTER"]

def megabytes(process):
    try:
        ours = "java" in process.name() and "skein" in " ".join(process.cmdline())
        ours = ours and process.environ().get("MAYFLY_CLUSTER", cluster) == cluster
        return process.memory_info().rss / 1e6 if ours else 0
    except psutil.Error:
        return 0

found = {}
for process in psutil.process_iter():
    if size := megabytes(process):
        what = "master" if "ApplicationMaster" in " ".join(process.cmdline()) else "driver"
        found[what] = found.get(what, 0) + size
pathlib.Path(sys.argv[1]).write_text(f"{found.get('driver', 0)} {found.get('master', 0)}")
"""
SKEIN = """
import sys, time
import skein
began = time.perf_counter()
security = skein.Security.new_credentials()
with skein.Client(security=security, log=False, log_level="WARN") as client:
    spec = skein.ApplicationSpec(
        name="bench",
        master=skein.Master(script="sleep 60", resources=skein.Resources(memory=512, vcores=1), security=security),
    )
    app_id = client.submit(spec)
    app = client.connect(app_id, wait=True, security=security)
    print(time.perf_counter() - began)
    app.shutdown()
"""


def by_skein() -> float:
    """Seconds until an application that does nothing is connected to."""
    done = subprocess.run([sys.executable, "-c", SKEIN], check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    pairs = pairs_wanted()
    memory: dict[str, list[float]] = {"driver": [], "master": []}
    with hadoop(), project(JOB, SCRIPT, targets=TARGETS) as home:
        result = home / "memory"

        def mayfly() -> float:
            run = planned(home)
            create(run)
            record = finish(run, args=(str(result),))
            delete(run)
            for what, text in zip(memory, result.read_text().split(), strict=True):
                memory[what].append(float(text))
            return record.phases["prepare"] + record.phases["start Dask"]

        ways = {"mayfly": mayfly, "skein": by_skein, "worker": worker_by_hand}
        series = interleave(ways, pairs=pairs, warm_up=True)
    bare = [a + b for a, b in zip(series["skein"], series["worker"], strict=True)]
    table = Table("driver start -> 2 workers ready, on YARN", pairs=pairs)
    table.value("Mayfly", series["mayfly"], "s")
    table.value("skein: Java process, submit, application master connected", series["skein"], "s")
    table.value("one `dask worker` by hand", series["worker"], "s")
    table.bound("Mayfly / (skein + worker)", ratios(series["mayfly"], bare), "x", most=1.25)
    table.bound("skein's Java process on the driver's machine, resident", memory["driver"], "MB", most=400)
    table.value("the application master on its node, resident", memory["master"], "MB")


if __name__ == "__main__":
    main()
