"""create -> run -> delete on an emulated Dataproc, against the target `local`: what the cloud's protocol itself costs.

The emulator has no delays and no nodes: "the cluster" is there at once, the carrier is a process of this machine. What
is left is Google's client library, the object store, and one process more that carries the driver.
"""

from __future__ import annotations

import time
from pathlib import Path

from common.on_dataproc import TARGETS, cloud
from common.pairs import Table, differences, interleave, pairs_wanted
from common.runs import BY, _wait, create, finish, project

from mayfly.cli.identity import cli_identity
from mayfly.project.loading import Project
from mayfly.steps.lifecycle import Run
from mayfly.steps.planning import plan_step

JOB = "cluster: {workers: 1, worker: {cores: 1, memory: 600 MB}}\nretries: 0\ntargets: [local, gcp]\ntarget: local\n"
STEPS = ("plan", "create", "run", "delete")


def main() -> None:
    pairs = pairs_wanted()
    took: dict[tuple[str, str], list[float]] = {}
    with cloud() as emulator, project(JOB, "print(1)\n", targets=TARGETS.format(deadline="30s")) as home:

        def once(target: str) -> float:
            began = [time.perf_counter()]
            run = planned(home, target)
            began.append(time.perf_counter())
            create(run)
            began.append(time.perf_counter())
            finish(run)
            began.append(time.perf_counter())
            _wait(lambda: run.delete(BY))
            began.append(time.perf_counter())
            for step, first, last in zip(STEPS, began, began[1:], strict=False):
                took.setdefault((target, step), []).append(last - first)
            return began[-1] - began[1]

        series = interleave({"local": lambda: once("local"), "gcp": lambda: once("gcp")}, pairs=pairs, warm_up=True)
        calls = emulator.calls()
    table = Table("create -> run -> delete, one worker, a script that prints", pairs=pairs)
    table.value("local", series["local"], "s")
    table.value("emulated Dataproc", series["gcp"], "s")
    table.bound("Dataproc - local", differences(series["gcp"], series["local"]), "s", most=1.0)
    for step in STEPS:
        more = differences(took["gcp", step][1:], took["local", step][1:])
        table.value(f"{step}: Dataproc - local", more, "s")
    for verb, codes in sorted(calls.items()):
        table.value(f"calls of {verb}, a run", sum(codes.values()) / (pairs + 1), "")


def planned(home: Path, target: str) -> Run:
    found = Project(home)
    identity = cli_identity(dag_id="bench", run_id=f"bench-{time.monotonic_ns()}")
    frozen = found.frozen_target(target)
    return Run.open(
        _wait(lambda: plan_step(job=found.job("bench"), target=frozen, identity=identity, home=home, by=BY))
    )


if __name__ == "__main__":
    main()
