"""`make verdict`: run the matrix on a live Airflow, show it, and with `--write` put it into docs/operations.md."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import airflow

from tests.lifecycle.airflow_api import Api
from tests.verdict.rows import ROWS, Row
from tests.verdict.table import Result, Results
from tests.verdict.world import PARTS, Case, World, make_stack

AT_ONCE = 12
"""Most of a row's time is waiting; more at once than this and tasks wait for each other."""


@dataclass
class Runner:
    world: World
    results: Results
    write: bool = False

    def one(self, row: Row) -> None:
        began = time.monotonic()
        case = Case(self.world)
        try:
            result = Result(wanted=row.wanted(airflow.__version__), seen=str(row.body(case)), remark=case.remark)
        except Exception as error:
            traceback.print_exc()
            result = Result(wanted=row.wanted(airflow.__version__), seen=f"{type(error).__name__}: {error}")
        self.results.add(row.title, result)
        if self.write:
            self.results.write()
        good = "as wanted" if result.good else f"WANTED {result.wanted}"
        names = ", ".join(f"{rundir.name}" for rundir, _ in case.generations()) if not result.good else ""
        spent = f"{time.monotonic() - began:.0f} s"
        print(f"{row.title:<70} {result.seen:<28} {good}  ({spent}) {result.remark} {names}", flush=True)

    def all(self, rows: list[Row]) -> None:
        over = threading.Event()
        nurse = threading.Thread(target=self._revive, args=(over,), daemon=True)
        nurse.start()
        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(self.one, [row for row in rows if not row.alone]))
        finally:
            over.set()
            nurse.join()
        for row in rows:
            if row.alone:
                self.one(row)

    def _revive(self, over: threading.Event) -> None:
        while not over.wait(2.0):
            for name in self.world.stack.revive():
                print(f"({name} ended by itself and was started again)", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make verdict", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/operations.md")
    parser.add_argument("--only", nargs="*", default=[], metavar="TEXT", help="rows whose title holds one of these")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a run that was not as wanted")
    options = parser.parse_args()
    rows = [row for row in ROWS if not options.only or any(text in row.title for text in options.only)]
    folder = Path(tempfile.mkdtemp(prefix="mayfly-verdict-"))
    stack = make_stack(folder)
    results = Results(airflow.__version__)
    print(f"Airflow {airflow.__version__}, {len(rows)} rows, in {folder}", flush=True)
    # Children inherit an ignored SIGINT (of a job in the background), and Ctrl-C would do nothing to them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    stack.migrate()
    shutil.copy(stack.home / "airflow.db", stack.home / "empty.db")
    world = None
    try:
        stack.start(PARTS)
        stack.wait_ready()
        world = World(stack, Api(stack))
        Runner(world, results, write=options.write).all(rows)
    finally:
        world.end_all() if world else stack.stop()
    good = results.show()
    if good or not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
