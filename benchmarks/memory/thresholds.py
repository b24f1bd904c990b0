"""Memory thresholds of workers: Dask's own against those of the profile `memory-tight`, on a job that must spill.

    .venv/bin/python benchmarks/memory/thresholds.py [PAIRS] [WORKER_GB] [CHUNK_MB]

One worker with 3 threads holds an array of 1.6 times its limit and reads all of it twice more. Not part of `make
bench`: a run writes and reads several times the worker's memory on disk. Each run is a fresh process; the two take
turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

PROFILES = Path(__file__).parents[2] / "config" / "profiles.yaml"
DASK = {"target": 0.60, "spill": 0.70, "pause": 0.80, "terminate": 0.95}
LIMIT_SECONDS = 600.0
TIMES = 1.6
THREADS = 3


def tight() -> dict[str, float]:
    """As the profile has them."""
    profile = yaml.safe_load(PROFILES.read_text())["profiles"]["memory-tight"]
    return dict(profile["dask"]["distributed.worker.memory"])


def job(thresholds: dict[str, float], worker: int, chunk: int, folder: str) -> dict[str, Any]:
    """One run in this process: seconds, the worker processes that Dask ended, the most that was on disk (bytes)."""
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster, wait
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Losses(SchedulerPlugin):
        lost = 0

        def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
            self.lost += scheduler.status.name == "running"

    rows = chunk // 8 // 1000
    count = round(TIMES * worker / chunk)
    settings = {f"distributed.worker.memory.{name}": value for name, value in thresholds.items()}
    losses = Losses()
    with (
        dask.config.set({**settings, "temporary-directory": folder}),
        LocalCluster(n_workers=1, threads_per_worker=THREADS, memory_limit=worker, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        cluster.scheduler.add_plugin(losses, name="losses")
        began = time.perf_counter()
        data = da.random.default_rng(7).random((rows * count, 1000), chunks=(rows, 1000)).persist()
        wait(data, timeout=LIMIT_SECONDS)
        spilled = sum(worker.metrics["spilled_bytes"]["disk"] for worker in cluster.scheduler.workers.values())
        variance = ((data - data.mean(axis=0)) ** 2).mean()
        result = float(client.compute(variance).result(timeout=LIMIT_SECONDS - (time.perf_counter() - began)))
        seconds = time.perf_counter() - began
        cluster.scheduler.remove_plugin("losses")
    return {"seconds": seconds, "lost": losses.lost, "spilled": spilled, "result": result}


def run(thresholds: dict[str, float], worker: int, chunk: int) -> dict[str, Any]:
    """`job` in a process of its own; `failed` says why when there is no result."""
    with tempfile.TemporaryDirectory(prefix="thresholds-") as folder:
        arguments = [json.dumps(thresholds), str(worker), str(chunk), folder]
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--one", *arguments],
                capture_output=True, text=True, timeout=LIMIT_SECONDS + 60, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"failed": f"no end within {LIMIT_SECONDS:.0f} s"}
    restarts = done.stderr.count("memory budget")
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:150], "restarts": restarts}
    return {**json.loads(done.stdout.splitlines()[-1]), "restarts": restarts}


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    worker = int(float(sys.argv[2]) * 1e9) if len(sys.argv) > 2 else 3 * 10**9
    chunk = int(float(sys.argv[3]) * 1e6) if len(sys.argv) > 3 else 128 * 10**6
    found: dict[str, list[dict[str, Any]]] = {"Dask's own": [], "memory-tight": []}
    settings = {"Dask's own": DASK, "memory-tight": tight()}
    for number in range(pairs):
        for name in sorted(found, reverse=number % 2 == 1):
            one = run(settings[name], worker, chunk)
            found[name].append(one)
            print(f"{name:13}", json.dumps(one), flush=True)
    for name, runs in found.items():
        good = [one for one in runs if "failed" not in one]
        took = f"{median(one['seconds'] for one in good):.0f} s" if good else "-"
        restarts = [one.get("restarts", 0) for one in runs]
        print(f"{name}: {len(good)} of {len(runs)} finished, median {took}, worker restarts {restarts}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(job(json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])))
    else:
        main()
