"""Kill-points in the real driver: it dies before or after each call that it makes to the run directory."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

from mayfly.backends.local import LocalBackend
from mayfly.contract import JobOrder, Timing
from mayfly.staging.stores import open_store
from tests.killpoints.actors import STEPS, TEARDOWN, World
from tests.killpoints.harness import KillPoints, Point

SCRIPT = """
# It may use dask; it only says that it ran.
import os
with open({ran!r}, "a") as file:
    file.write(f"{{os.environ['MAYFLY_CLUSTER']}} run_job {{os.environ['MAYFLY_SUPERVISOR']}}\\n")
"""
MAIN = """
import signal, sys
if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    from mayfly.driver.driver_tap import install
    install(sys.argv[1])
    from mayfly.driver.supervisor import main
    sys.exit(main(sys.argv[1:]))
"""
DRIVER_MODES = ("retry", "teardown", "both")


class TappedDriver(LocalBackend):
    """The local backend and the real driver, with `driver_tap` between the driver and its store."""

    def submit(self, order: JobOrder, *, rundir: str) -> None:
        store = open_store(self.target.staging)
        data = store.get(order.code)
        assert data is not None
        changed = {
            "lib/mayfly/driver/__main__.py": MAIN,
            "lib/mayfly/driver/driver_tap.py": Path(__file__).with_name("driver_tap.py").read_text(),
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(buffer, "w") as archive:
            for name in given.namelist():
                if name not in changed:
                    archive.writestr(name, given.read(name))
            for name, text in changed.items():
                archive.writestr(name, text)
        store.create("code/tapped.zip", buffer.getvalue())
        super().submit(replace(order, code="code/tapped.zip"), rundir=rundir)


class DriverKillPoints(KillPoints):
    """`run_driver` for one point in one mode; the driver's calls are found by `find_driver_points`."""

    def __init__(self, *, folder: Path) -> None:
        super().__init__(backend="tests.killpoints.driver:TappedDriver", folder=folder)

    def world(self) -> World:
        world = super().world()
        return replace(
            world,
            timing=Timing(status=0.3, segment=0.3, stop_grace=0.5, last_write=10.0),
            script=SCRIPT.format(ran=str(world.folder / "ran.txt")),
            patience=240.0,
        )

    def find_driver_points(self) -> list[Point]:
        """In the order in which they come up in an undisturbed run."""
        world = self.world()
        for step in STEPS:
            self.act(world, step).wait()
        lines = (world.folder / "driver-trace").read_text().splitlines()
        self._audit(world, Point("driver", "nothing", 1, "before"), "undisturbed", wanted="success")
        return list(dict.fromkeys(Point("driver", *json.loads(line)) for line in lines))

    def run_driver(self, point: Point, mode: str) -> None:
        world = self.world()
        (world.folder / "driver-point").write_text(json.dumps([point.call, point.nth, point.when]))
        for step in ("plan", "create", "job"):
            self.act(world, step).wait()
        if not (world.folder / "driver-died").exists():
            self.missed.append(str(point))
        again = None
        if mode != "teardown" and world.state("job") != "success":
            again = self.act(world, "job", try_number=2)
            if mode == "retry":
                again.wait()
        if mode == "retry":
            for step in TEARDOWN:
                self.act(world, step).wait()
        else:
            self._tear_down(world)
        if again is not None:
            again.wait()
        self._audit(world, point, f"driver, {mode}", wanted="success" if mode == "retry" else None)
