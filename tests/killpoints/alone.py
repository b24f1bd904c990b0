"""Kill-points for one backend in a process of its own: `python -m tests.killpoints.alone NAME FOLDER MOST`.

NAME is `package.module:name` of a backend, or of a context manager that is given a folder and yields a `KillPoints`,
for backends that need something to talk to. Alone, since actors are forks, and a client such as gRPC's bears none once
it has spoken: here nobody but the actors ever opens a channel. Prints a `Told` as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from mayfly.backends.base import ClusterBackend
from tests.killpoints.driver_tap import verbs
from tests.killpoints.harness import MODES, KillPoints, Point, Violation


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the harness did: all points of a run, how many cases of how many, which points were not come to."""

    points: list[str]
    per_call: dict[str, int]
    cases: int
    of: int
    missed: list[str]
    violations: list[str]
    seconds: float


def main() -> None:
    name, folder, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    began, violations = time.monotonic(), []
    with harness_of(name, folder) as harness:
        points = harness.find_points()
        cases = [(mode, point) for point in points for mode in MODES if is_case(mode, point)]
        for mode, point in cases if most >= len(cases) else share(cases, most):
            try:
                harness.run_all(mode, [point])
            except (Violation, AssertionError) as error:
                violations.append(f"{mode}: {point}: {error}")
    told = Told(
        points=list(map(str, points)),
        per_call=dict(Counter(point.call for point in points)),
        cases=harness.cases,
        of=len(cases),
        missed=harness.missed,
        violations=violations,
        seconds=round(time.monotonic() - began, 1),
    )
    print(json.dumps(asdict(told)))


def harness_of(name: str, folder: Path) -> AbstractContextManager[KillPoints]:
    module, _, member = name.partition(":")
    found = getattr(import_module(module), member)
    if all(hasattr(found, verb) for verb in verbs(ClusterBackend)):
        return nullcontext(KillPoints(backend=name, folder=folder))
    made: AbstractContextManager[KillPoints] = found(folder)
    return made


def is_case(mode: str, point: Point) -> bool:
    return mode == "retry" or point.step not in ("delete", "report")


def share(cases: list[tuple[str, Point]], most: int) -> list[tuple[str, Point]]:
    """Evenly over points and modes; of the calls that reach the backend, since the store's are the same with any."""
    remote = [case for case in cases if not case[1].call.startswith("store.")]
    return [remote[index * len(remote) // most] for index in range(most)]


if __name__ == "__main__":
    main()
