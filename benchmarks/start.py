"""From "create" to the first Dask result on two workers of this machine, against Dask alone.

Two ways to do without Mayfly: one script that makes its own LocalCluster (one process, one import of Dask), and a
LocalCluster in a process of its own with a script beside it, one after the other as Mayfly does it, since the script
shall not start before the cluster is there. The second is "a bare LocalCluster plus one Python start".
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from common.pairs import Table, interleave, pairs_wanted, ratios
from common.runs import TWO_WORKERS, create, delete, finish, planned, project

FIRST_RESULT = """
import pathlib, sys, time
from dask.distributed import Client
if __name__ == "__main__":
    with Client({given}) as client:
        client.wait_for_workers(2)
        assert client.submit(sum, (1, 2)).result() == 3
        pathlib.Path({path!r}).write_text(repr(time.time()))
"""
BARE = """
from dask.distributed import Client, LocalCluster
if __name__ == "__main__":
    one = dict(threads_per_worker=1, memory_limit="600 MB", dashboard_address="127.0.0.1:0")
    with LocalCluster(n_workers=2, **one) as cluster:
        {then}
"""
ALONE = """import pathlib, time
        with Client(cluster) as client:
            client.wait_for_workers(2)
            assert client.submit(sum, (1, 2)).result() == 3
            pathlib.Path({path!r}).write_text(repr(time.time()))"""
BESIDE = """import subprocess, sys
        subprocess.run([sys.executable, {script!r}, cluster.scheduler_address], check=True)"""


def main() -> None:
    pairs = pairs_wanted()
    with project(TWO_WORKERS, "") as home:
        result = home / "result"
        (home / "jobs" / "bench" / "bench.py").write_text(FIRST_RESULT.format(given="", path=str(result)))
        beside, alone, script = home / "beside.py", home / "alone.py", home / "script.py"
        script.write_text(FIRST_RESULT.format(given="sys.argv[1]", path=str(result)))
        alone.write_text(BARE.format(then=ALONE.format(path=str(result))))
        beside.write_text(BARE.format(then=BESIDE.format(script=str(script))))
        phases: dict[str, list[float]] = {}

        def mayfly() -> float:
            run = planned(home)
            began = time.time()
            create(run)
            record = finish(run)
            first = read(result) - began
            for phase, seconds in record.phases.items():
                phases.setdefault(phase, []).append(seconds)
            delete(run)
            return first

        def bare(path: Path) -> float:
            began = time.time()
            subprocess.run([sys.executable, str(path)], check=True, stderr=subprocess.DEVNULL)
            return read(result) - began

        series = interleave(
            {"mayfly": mayfly, "beside": lambda: bare(beside), "alone": lambda: bare(alone)},
            pairs=pairs,
            warm_up=True,
        )
    table = Table("create -> first result of Dask, 2 workers", pairs=pairs)
    table.value("Mayfly, from the call of create", series["mayfly"], "s")
    table.value("LocalCluster in one process, then the script in another", series["beside"], "s")
    table.value("script with a LocalCluster of its own", series["alone"], "s")
    table.bound("Mayfly / LocalCluster and a script", ratios(series["mayfly"], series["beside"]), "x", most=1.15)
    table.value("Mayfly / script with a LocalCluster of its own", ratios(series["mayfly"], series["alone"]), "x")
    for phase, seconds in phases.items():
        table.value(f"phase {phase} of the driver (run = the whole script)", seconds, "s")


def read(path: Path) -> float:
    """The time that the script noted; each is read once."""
    text = path.read_text()
    path.unlink()
    return float(text)


if __name__ == "__main__":
    main()
