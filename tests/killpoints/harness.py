"""Kill-points: kill or stop an actor before and after every call it makes to the store or the backend.

The list of points is found by the harness, from the calls that a run makes to the verbs of the two Protocols: nobody
writes it down, and a new call, or a new verb, is covered without anyone remembering. For each point the actor dies
there (or stops, and goes on late: an orphan), the others carry on as Airflow would have them, and the audit looks at
what is left.

To try a backend of your own: the fixture `kill_points`, see `conftest.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from mayfly.backends.base import ClusterBackend, open_backend
from mayfly.contract import Outcome
from mayfly.generation import State
from mayfly.staging.stores import FileStore, Store
from mayfly.states import ClusterState
from mayfly.steps.lifecycle import Run
from tests.killpoints.actors import RETRIES, STEPS, TEARDOWN, World, perform
from tests.killpoints.driver_tap import verbs
from tests.processes import family, works_below

_PASSES = 2
"""A poll repeats the same calls; each is a point in its first and second pass."""


@dataclass(frozen=True, order=True)
class Point:
    """A moment in an actor's life: before or after the n-th time it makes a call."""

    step: str
    call: str
    nth: int
    when: str

    def __str__(self) -> str:
        return f"{self.step}: {self.when} {self.call}" + (f" (pass {self.nth})" if self.nth > 1 else "")


@dataclass(frozen=True)
class Orders:
    """What befalls an actor: at `point` it is killed, or stopped until the harness wakes it."""

    point: Point | None = None
    stop: bool = False


class Tap:
    """Sits on the real store's and backend's methods in an actor's process, notes each call, and carries out orders."""

    def __init__(self, world: World, step: str, orders: Orders, trace: Path | None) -> None:
        self.world, self.step, self.orders, self.trace = world, step, orders, trace
        self.seen: dict[tuple[str, str], int] = {}
        self.depth = 0
        for verb in verbs(Store):
            self._wrap(FileStore, verb, "store")
        for verb in verbs(ClusterBackend):
            self._wrap(type(open_backend(world.target)), verb, "backend")

    def _wrap(self, cls: type, verb: str, where: str) -> None:
        inner = getattr(cls, verb)

        def tapped(this: Any, *args: Any, **kwargs: Any) -> Any:
            if self.depth:  # a backend's own use of the store is part of that verb
                return inner(this, *args, **kwargs)
            what = _kind(args[0]) if where == "store" else ""
            call = f"{where}.{verb} {what}".strip()
            self._at("before", call)
            self.depth += 1
            try:
                return inner(this, *args, **kwargs)
            finally:
                self.depth -= 1
                self._at("after", call)
                if (where, verb) == ("backend", "create"):
                    self._check_single()

        setattr(cls, verb, tapped)

    def _at(self, when: str, call: str) -> None:
        nth = self.seen[when, call] = self.seen.get((when, call), 0) + 1
        point = Point(self.step, call, nth, when)
        if self.trace is not None and nth <= _PASSES:
            with self.trace.open("a") as file:
                file.write(json.dumps([point.step, point.call, point.nth, point.when]) + "\n")
        if point == self.orders.point:
            os.kill(os.getpid(), signal.SIGSTOP if self.orders.stop else signal.SIGKILL)

    def _check_single(self) -> None:
        self.depth += 1
        names = [view.name for view in open_backend(self.world.target).find({"managed-by": "mayfly"})]
        self.depth -= 1
        if len(names) > 1:
            with (self.world.folder / "violations").open("a") as file:
                file.write(f"two clusters at once: {names}\n")


def _kind(path: str) -> str:
    """A path without what differs from run to run."""
    path = re.sub(r"^runs/[^/]+/?", "", path)
    return re.sub(r"\d{6}", "#", re.sub(r"[0-9a-f]{16,}", "#", path))


# ---------------------------------------------------------------- actors as processes


class Actor:
    """A try of a step in a process of its own."""

    def __init__(
        self,
        world: World,
        step: str,
        *,
        try_number: int = 1,
        orders: Orders | None = None,
        trace: Path | None = None,
        sabotage: Callable[[str], None] | None = None,
        tap: type[Tap] = Tap,
    ) -> None:
        self.step, self.stopped, self.patience = step, False, 4 * world.patience
        self.code: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.setsid()
                if sabotage is not None:
                    sabotage(step)
                tap(world, step, orders or Orders(), trace)
                perform(world, step, try_number=try_number)
                code = 0
            except BaseException:
                (world.folder / f"crash-{step}").write_text(traceback.format_exc())
            finally:
                os._exit(code)

    def wait(self) -> Actor:
        """Until it has ended or stopped itself."""
        deadline = time.monotonic() + self.patience
        while self.code is None and not self.stopped:
            pid, status = os.waitpid(self.pid, os.WUNTRACED | os.WNOHANG)
            if pid and os.WIFSTOPPED(status):
                self.stopped = True
            elif pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"{self.step} neither ended nor stopped in {self.patience} s")
            else:
                time.sleep(0.002)
        return self

    def wake(self) -> Actor:
        if self.stopped:
            self.stopped = False
            os.kill(self.pid, signal.SIGCONT)
        return self

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


# ---------------------------------------------------------------- the harness

MODES = ("retry", "teardown", "both", "orphan after closing", "orphan after listing", "orphan after receipt")


class Violation(AssertionError):
    """What must never be, with the case in which it was."""


class KillPoints:
    """Runs one case after another, each in a fresh world below `folder`."""

    tap: type[Tap] = Tap

    def __init__(
        self,
        *,
        backend: str,
        folder: Path,
        sabotage: Callable[[str], None] | None = None,
        patience: float = World.patience,
    ) -> None:
        self.backend, self.folder, self.sabotage, self.patience = backend, folder, sabotage, patience
        self._number = count(1)
        self.cases = 0
        self.missed: list[str] = []
        """Points that a case did not come to: the run took another way there (a poll less, say)."""

    def world(self) -> World:
        folder = self.folder / f"world-{next(self._number)}"
        folder.mkdir(parents=True)
        return World(folder=folder, backend=self.backend, patience=self.patience)

    def act(self, world: World, step: str, **how: Any) -> Actor:
        return Actor(world, step, sabotage=self.sabotage, tap=self.tap, **how)

    def run_all(self, mode: str, points: Iterable[Point]) -> None:
        """Every point in one mode: "retry", "teardown", "both" or "orphan after <closing|listing|receipt>"."""
        for point in points:
            if mode == "retry":
                self.retry(point)
            elif point.step in ("delete", "report"):
                continue  # their teardown is their own retry
            elif mode.startswith("orphan after "):
                self.orphan(point, mode.removeprefix("orphan after "))
            else:
                {"teardown": self.teardown, "both": self.both}[mode](point)

    def find_points(self) -> list[Point]:
        """All points of an undisturbed run, and of a teardown that finds the job still running."""
        points: dict[Point, None] = {}
        for steps in (STEPS, ("plan", "create", "delete"), ("plan", "create", "job", "delete")):
            world = self.world()
            trace = world.folder / "trace"
            for step in steps:
                dies = Orders(point=Point("job", "backend.submit", 1, "after")) if steps != STEPS else Orders()
                self.act(world, step, trace=trace, orders=dies).wait()
            for line in trace.read_text().splitlines():
                points[Point(*json.loads(line))] = None
            self._clean(world)
        return list(points)

    # -- cases

    def retry(self, point: Point, second: Point | None = None) -> None:
        """The actor dies at the point; its task is tried again, then everything goes its way.

        With `second`, another actor (the retry itself, or a later step) dies there, too.
        """
        world = self.world()
        deaths = [point, *([second] if second else [])]
        for step in STEPS:
            if step not in TEARDOWN and any(world.state(s) not in ("success",) for s in STEPS[: STEPS.index(step)]):
                world.set_state(step, "upstream_failed")
                continue
            for try_number in range(1, RETRIES[step] + 2):
                due = next((death for death in deaths if death.step == step), None)
                actor = self.act(world, step, try_number=try_number, orders=Orders(point=due)).wait()
                if actor.killed and due is not None:
                    deaths.remove(due)
                world.set_state(step, "failed") if actor.killed else None
                if world.state(step) == "success":
                    break
        self.missed += [str(death) for death in deaths]
        how = f"retry, and {second}" if second else "retry"
        self._audit(world, point, how, wanted=None if second or point.step == "collect" else "success")

    def teardown(self, point: Point) -> None:
        """The actor dies at the point and is not tried again (a user's mark, no retries left)."""
        world = self._until(point, Orders(point=point))
        if not (world.folder / "handle.json").exists():
            return self._audit_planless(world, point)
        self._tear_down(world)
        # On a busy machine a run may go another way, and not come to the point: then nobody died.
        died = self._orphan.killed and point.step in ("plan", "create", "job")
        self._audit(world, point, "teardown", wanted="failed" if died else None)
        return None

    def both(self, point: Point) -> None:
        """The retry and the teardown at the same time."""
        world = self._until(point, Orders(point=point))
        if not (world.folder / "handle.json").exists():
            return self._audit_planless(world, point)
        again = self.act(world, point.step, try_number=2)
        self._tear_down(world)
        again.wait()
        self._audit(world, point, "retry and teardown", wanted=None)
        return None

    def orphan(self, point: Point, until: str) -> None:
        """The actor stops at the point; the teardown runs until `until` ("closing", "listing", "receipt"); the actor
        goes on and ends; then the teardown goes on."""
        world = self._until(point, Orders(point=point, stop=True))
        if not (world.folder / "handle.json").exists():
            return self._audit_planless(world, point)
        hold = {
            "closing": Point("delete", "store.create closing.json", 1, "after"),
            "listing": Point("delete", "backend.find", 2, "after"),
            "receipt": None,
        }[until]
        self.act(world, "collect").wait() if until != "closing" else None
        delete = self.act(world, "delete", orders=Orders(point=hold, stop=True)).wait()
        self._orphan.wake().wait()
        delete.wake().wait()
        if world.state("delete") != "success":
            self.act(world, "delete", try_number=2).wait()
        self.act(world, "report").wait()
        self._audit(world, point, f"orphan goes on after {until}", wanted=None)
        return None

    # -- parts of cases

    def _until(self, point: Point, orders: Orders) -> World:
        """All steps up to the point's, whose actor meets its orders."""
        world = self.world()
        for step in STEPS[: STEPS.index(point.step)]:
            if step == "collect" and point.step == "delete" and "cancel" in point.call:
                continue
            self.act(world, step).wait()
        self._orphan = self.act(world, point.step, orders=orders).wait()
        if not self._orphan.stopped and not self._orphan.killed:
            self.missed.append(str(point))
        if not self._orphan.stopped:
            world.set_state(point.step, "failed" if self._orphan.killed else world.state(point.step))
        return world

    def _tear_down(self, world: World) -> None:
        for step in TEARDOWN:
            for try_number in range(2, RETRIES[step] + 3):
                self.act(world, step, try_number=try_number).wait()
                if world.state(step) == "success":
                    break

    # -- the audit

    def _audit(self, world: World, point: Point, how: str, *, wanted: str | None) -> None:
        self.cases += 1
        wrong = list(self._wrongs(world))
        verdict = (world.folder / "verdict").read_text() if (world.folder / "verdict").exists() else "none"
        # Both are red: a job that still ran is "cancelled" by the teardown.
        fits = {"failed": ("failed", "cancelled")}.get(wanted or "", (wanted,))
        if wanted and verdict not in fits:
            wrong.append(f"the verdict is {verdict!r}, not {wanted!r}")
        if wrong:
            notes = "\n".join(
                f"{path.name}: {path.read_text()}" for path in sorted(world.folder.glob("[ec]r[ra][os][rh]-*"))
            )
            self._clean(world)
            raise Violation(f"{point} [{how}]: " + "; ".join(wrong) + f"\n{notes}")
        self._clean(world)

    def _audit_planless(self, world: World, point: Point) -> None:
        """Plan died before it returned: nothing else runs, and so nothing may have been made."""
        self.cases += 1
        self._orphan.wake().wait()
        left = self.left(world)
        if left:
            raise Violation(f"{point}: without a plan there is {left}")
        self._clean(world)

    def _wrongs(self, world: World) -> Iterator[str]:
        run = Run.open(world.handle())
        if (world.folder / "violations").exists():
            yield (world.folder / "violations").read_text()
        for path in world.folder.glob("crash-*"):
            yield f"{path.name}: {path.read_text()[-300:]}"
        if run.state() is not State.CLOSED and run.dir.calls():
            # A late retry of plan may open a generation that nobody comes to use: a file, and nothing else.
            yield f"the generation is {run.state()}: no receipt"
        ran = world.ran()
        if len(set(ran)) != len(ran):
            yield f"an attempt ran twice: {ran}"
        # A receipt must be true, and stay so: whatever is still under way has had its time.
        if left := self.left(world):
            yield f"clusters left beside a receipt: {left}"
        receipt = run.dir.receipt()
        if receipt and ran and receipt.rule.startswith("never asked"):
            yield f"the receipt says {receipt.rule!r}, but a job ran"
        verdict = (world.folder / "verdict").read_text() if (world.folder / "verdict").exists() else "none"
        if verdict == "success" and not any(record.outcome is Outcome.SUCCESS for record in run.records()):
            yield "green without a job that succeeded"

    def _clean(self, world: World) -> None:
        self.end(world)
        shutil.rmtree(world.folder, ignore_errors=True)

    def left(self, world: World) -> list[str]:
        """Clusters and processes that are there, in words."""
        views = open_backend(world.target).find({"managed-by": "mayfly"})
        return [*(f"{view.name} {view.state}" for view in views), *(f"process {pid}" for pid in _processes(world))]

    def end(self, world: World) -> None:
        """Nothing of it is left afterwards."""
        backend = open_backend(world.target)
        for view in backend.find({}):
            if view.state is not ClusterState.ABSENT:
                backend.delete(view.name, owner=view.labels.get("owner", ""))
        for process in _processes(world):
            with suppress(psutil.Error):
                psutil.Process(process).kill()


def _processes(world: World) -> list[int]:
    """Drivers of this world, and all that they have started: they work in its folder."""
    return [process.pid for process in family([works_below(world.folder)])]


def spread(points: Iterable[Point], *, most: int) -> list[Point]:
    """At most `most` of the points, evenly over the list: each step keeps its share."""
    points = list(points)
    if len(points) <= most:
        return points
    return [points[index * len(points) // most] for index in range(most)]


__all__ = ["Actor", "KillPoints", "Orders", "Point", "Violation", "World", "spread"]
