"""Runs rows side by side on one live Airflow: mostly they wait."""

from __future__ import annotations

import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import airflow

from tests.verdict.rows import Row
from tests.verdict.table import Result, Results
from tests.verdict.world import Case, World

AT_ONCE = 8
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
            print(case.story(), flush=True)
            result = Result(wanted=row.wanted(airflow.__version__), seen=f"{type(error).__name__}: {error}")
        if self.world.over.is_set():
            return
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
                try:
                    list(pool.map(self.one, [row for row in rows if not row.alone]))
                except BaseException:
                    self.world.stop()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
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
