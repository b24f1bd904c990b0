"""Many runs at a time against Google's quotas: 300 that wait, 200 that start while the API says "too many".

Google's figures a minute, project and region: 200 cluster operations, 400 job changes, 7,500 reads. The waiting runs
are poked as Airflow does it (every 5 s in the first minute, each poke a process of some 2 s: so every 7 s), all of them
in their first minute, which is when most is asked. Their drivers are files: a heartbeat where one is due.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from common.on_dataproc import TARGETS, cloud
from common.pairs import Table
from common.runs import BY, JobRequest, project

from mayfly.cli.identity import cli_identity
from mayfly.contract import Phase, Status, Timestamp
from mayfly.errors import BackendUnavailable, StoreUnavailable
from mayfly.project.loading import Project
from mayfly.steps.lifecycle import Run
from mayfly.steps.planning import plan_step
from tests.emulators.dataproc.client import Emulator

WAITING, STARTING = 300, 200
EVERY, SECONDS = 7.0, 60.0
READS = ("GetCluster", "ListClusters", "GetJob", "GetAutoscalingPolicy")
CHANGES = ("CreateCluster", "DeleteCluster")
JOB = "cluster: {workers: 1, worker: {cores: 1, memory: 600 MB}}\nretries: 0\ntargets: [gcp]\ntarget: gcp\n"
REQUEST = JobRequest(key="run_job", script="bench.py")


def main() -> None:
    with cloud() as emulator, project(JOB, "print(1)\n", targets=TARGETS.format(deadline="60s")) as home:
        # A folder as staging: a hundred thousand requests to an object store would be what is measured.
        staging = f"file://{home}/staging"
        emulator.rule(on="job", do="body", seconds=100_000)
        runs = spread([lambda n=n: planned(home, staging, n) for n in range(WAITING)])
        table = Table(f"{WAITING} runs at a time, each poked every {EVERY:g} s", pairs=1)
        for what, make in (("created", stuck_in_creating), ("watched", watched), ("deleted", stuck_in_deleting)):
            poke = make(emulator, runs)
            emulator.forget_calls()
            began = time.monotonic()
            spread([partial(until, began + SECONDS, partial(poke, run)) for run in runs], WAITING)
            minutes = (time.monotonic() - began) / 60
            calls = {verb: sum(codes.values()) / minutes for verb, codes in emulator.calls().items()}
            reads = sum(count for verb, count in calls.items() if verb in READS)
            table.bound(f"being {what}: reads a minute", reads, "", most=7500)
            table.value(f"being {what}: cluster operations a minute", sum(calls.get(v, 0) for v in CHANGES), "")
        emulator.clear()
        storm(emulator, home, staging)


def planned(home: Path, staging: str, number: int) -> Run:
    from dataclasses import replace

    found = Project(home)
    target = replace(found.frozen_target("gcp"), staging=staging)
    identity = cli_identity(dag_id="bench", run_id=f"crowd-{number}-{time.monotonic_ns()}")
    poll = plan_step(job=found.job("bench"), target=target, identity=identity, home=home, by=BY)
    return Run.open(poll.result)


def stuck_in_creating(emulator: Emulator, runs: list[Run]) -> Callable[[Run], object]:
    emulator.settings(create=SECONDS * 2)
    spread([lambda run=run: run.create(BY) for run in runs])
    return lambda run: run.create(BY)


def watched(emulator: Emulator, runs: list[Run]) -> Callable[[Run], object]:
    """Half of them have a driver that shows a heartbeat, the others none yet: those are asked for at the API."""
    emulator.settings(create=0.0)
    for run in runs:
        emulator.set_state(run.plan.name, "RUNNING")
    spread([lambda run=run: poke_job(run) for run in runs])
    alive = runs[: len(runs) // 2]
    threading.Thread(target=beat, args=(alive, time.monotonic() + SECONDS + 40), daemon=True).start()
    time.sleep(25)  # a driver that has just been started is not asked for
    return poke_job


def poke_job(run: Run) -> object:
    return run.job(REQUEST, try_number=1, inline=True, by=BY)


def beat(runs: list[Run], end: float) -> None:
    seq = 0
    while time.monotonic() < end:
        seq += 1
        for run in runs:
            status = Status(seq=seq, at=Timestamp(time.time()), phase=Phase.RUN, elapsed=float(seq))
            run.dir.attempt("run_job", 1).put("status.json", status)
        time.sleep(2)


def stuck_in_deleting(emulator: Emulator, runs: list[Run]) -> Callable[[Run], object]:
    emulator.settings(delete=SECONDS * 3)
    for run in runs:  # without waiting for drivers that do not exist
        run._end_jobs = lambda **_: None  # type: ignore[method-assign]
    spread([lambda run=run: run.delete(BY) for run in runs])
    return lambda run: run.delete(BY)


def storm(emulator: Emulator, home: Path, staging: str) -> None:
    """Create, wait, delete, prove: all at once, with Google's quota of 200 operations a minute."""
    runs = spread([lambda n=n: planned(home, staging, n) for n in range(STARTING)])
    emulator.settings(create=0.0, delete=0.0, cluster_quota=200)
    emulator.forget_calls()
    began = time.monotonic()
    failed = [error for error in spread([lambda run=run: whole_life(run) for run in runs], STARTING) if error]
    took = time.monotonic() - began
    refused = sum(codes.get("RESOURCE_EXHAUSTED", 0) for codes in emulator.calls().values())
    table = Table(f"{STARTING} clusters at once, at most 200 operations a minute", pairs=1)
    table.bound("runs that failed", len(failed), "", most=0)
    table.bound("clusters left", len(emulator.clusters()), "", most=0)
    table.value("clusters that ever were", len(emulator.history()), "")
    table.value('answers "too many"', refused, "")
    table.value("seconds for all of it (the quota alone: 60 to 120)", took, "s")
    for error in failed[:3]:
        print(f"  {error!r}"[:300])


def whole_life(run: Run) -> Exception | None:
    try:
        for step in (lambda: run.create(BY), lambda: run.delete(BY)):
            while not patient(step):
                time.sleep(1.0)
    except Exception as error:
        return error
    return None


def patient(step: Callable[[], object]) -> bool:
    """As tasks wait: no answer is no failure."""
    try:
        return bool(step().done)  # type: ignore[attr-defined]
    except (BackendUnavailable, StoreUnavailable):
        return False


def until(deadline: float, poke: Callable[[], object]) -> None:
    while time.monotonic() < deadline:
        began = time.monotonic()
        poke()
        time.sleep(max(0.0, min(began + EVERY, deadline) - time.monotonic()))


def spread(calls: list[Callable[[], object]], threads: int = 16) -> list:  # type: ignore[type-arg]
    with ThreadPoolExecutor(threads) as pool:
        return [each.result() for each in [pool.submit(call) for call in calls]]


if __name__ == "__main__":
    main()
