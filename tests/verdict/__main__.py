"""`make verdict`: run the matrix on a live Airflow, show it, and with `--write` put it into docs/operations.md."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import airflow

from tests.verdict.cloud import cloud, missing
from tests.verdict.rows import CLOUD, ROWS
from tests.verdict.runner import Runner
from tests.verdict.table import Results
from tests.verdict.world import PARTS, SerialApi, World, make_stack


def main() -> int:
    parser = argparse.ArgumentParser(prog="make verdict", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/operations.md")
    parser.add_argument("--only", nargs="*", default=[], metavar="TEXT", help="rows whose title holds one of these")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a run that was not as wanted")
    options = parser.parse_args()
    rows = [row for row in ROWS if not options.only or any(text in row.title for text in options.only)]
    folder = Path(tempfile.mkdtemp(prefix="mayfly-verdict-"))
    ends = ExitStack()
    if why := missing():
        rows = [row for row in rows if not row.title.startswith(CLOUD)]
        print(f"without rows of the cloud: {why}")
    there = None if why else ends.enter_context(cloud(folder / "cloud"))
    stack = make_stack(folder, there)
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
        world = World(stack, SerialApi(stack), there)
        Runner(world, results, write=options.write).all(rows)
    finally:
        world.end_all() if world else stack.stop()
        ends.close()
    good = results.show()
    if good or not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
