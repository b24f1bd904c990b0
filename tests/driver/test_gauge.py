"""The regular look, without a cluster: what the host would tell is plain data."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mayfly.contract import Limits, Phase, Timing
from mayfly.driver.children import Children
from mayfly.driver.evidence import CpuMeter, Evidence
from mayfly.driver.gauge import Gauge
from mayfly.driver.logbook import Logbook
from mayfly.driver.loop import Loop
from mayfly.driver.sampler import Sampler
from mayfly.driver.watch import CPU_ALIVE
from mayfly.driver.writer import Write, Writer
from mayfly.staging.stores import FileStore
from tests.driver.driving import make_order

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def gauging(folder: Path, **order: Any) -> Iterator[tuple[Gauge, Evidence]]:
    """A gauge that measures this process and what it has started."""
    made, evidence, writer = make_order(**order), Evidence(), Writer(FileStore(folder))
    log = Logbook(spool=folder / "log", put=lambda number, data: None, room=writer.room, segment_seconds=1)
    nobody = cast(Loop, None)  # the real one takes the process's signals; children that are not started need none
    children = Children(order=made, scratch=folder, loop=nobody, log=log, evidence=evidence)
    yield Gauge(order=made, path="a", evidence=evidence, children=children, log=log, writer=writer), evidence
    log.close()
    writer.finish(Write(path="a/record.json", data=b"{}"), timeout=60)


def tick_until(gauge: Gauge, done: Callable[[], Any], *, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "waited in vain"
        gauge.hurry()
        gauge.tick(Phase.RUN)
        time.sleep(0.02)


class Workers:
    """What Dask's scheduler knows of workers on other machines, and a clock."""

    def __init__(self, *names: str) -> None:
        self.now = 100.0
        self.percent = dict.fromkeys(names, 0.0)
        self.task_prefixes: dict[str, Any] = {}

    @property
    def workers(self) -> dict[str, Any]:
        return {
            f"tls://{name}": SimpleNamespace(name=name, memory_limit=0, metrics={"cpu": percent})
            for name, percent in self.percent.items()
        }


def test_cpu_of_workers_counts_between_two_looks_though_each_sample_is_of_a_moment() -> None:
    """The worker computes from the second sample to the eighth, and idles again when it is looked at."""
    dask, meter = Workers("0", "1"), CpuMeter[str]()
    sampler = Sampler(dask, clock=lambda: dask.now)
    meter.rates(dask.now, {})
    for second in range(30):
        dask.now += 2
        dask.percent["1"] = 100.0 if 1 <= second < 8 else 1.0
        sample = sampler.sample(wanted=2)
    rates = meter.rates(sample["at"], sample["cpu_seconds"])
    assert rates["0"] == 0.0
    assert 0.2 < rates["1"] < 0.3
    assert sample["cpu"] == 0.01


def test_a_flicker_of_an_idle_worker_is_no_work() -> None:
    dask, meter = Workers("0"), CpuMeter[str]()
    sampler = Sampler(dask, clock=lambda: dask.now)
    meter.rates(dask.now, {})
    for second in range(30):
        dask.now += 2
        dask.percent["0"] = 40.0 if second == 29 else 2.0
        sample = sampler.sample(wanted=1)
    assert max(meter.rates(sample["at"], sample["cpu_seconds"]).values()) < CPU_ALIVE


def test_a_worker_that_left_is_forgotten() -> None:
    dask = Workers("0", "1")
    sampler = Sampler(dask, clock=lambda: dask.now)
    dask.now += 2
    assert set(sampler.sample(wanted=2)["cpu_seconds"]) == {"0", "1"}
    del dask.percent["0"]
    assert set(sampler.sample(wanted=2)["cpu_seconds"]) == {"1"}


def test_one_long_task_on_another_machine_is_no_stall(tmp_path: Path) -> None:
    """The script waits, nothing is printed, and no process of this machine works."""
    dask = Workers("0")
    dask.percent["0"] = 100.0
    sampler = Sampler(dask, clock=lambda: dask.now)

    with gauging(tmp_path, launcher="yarn", limits=Limits(start=9, job=9, stall=1)) as (gauge, evidence):

        def moves() -> bool:
            dask.now += 2
            evidence.host = sampler.sample(wanted=1)
            return evidence.activity(output_bytes=0).cpu > CPU_ALIVE

        tick_until(gauge, moves)


def test_a_job_without_a_task_is_told_in_time_though_the_stall_watch_looks_once_a_minute(tmp_path: Path) -> None:
    timing = Timing(status=0.3, no_tasks=0.5)
    with gauging(tmp_path, limits=Limits(start=9, job=9, stall=1800), timing=timing) as (gauge, _):
        gauge.tick(Phase.START)  # the stall watch looks now, and then in a minute
        tick_until(gauge, lambda: gauge.no_tasks, seconds=45)
    assert "in the first" in gauge.no_tasks


MEASURES_ITS_FORKS = """
import os, signal, sys
from pathlib import Path
import psutil
from mayfly.contract import Phase
from mayfly.driver import tree
from tests.driver.test_gauge import gauging

data, forked = b"x" * 100_000_000, []
for _ in range(4):
    forked.append(os.fork())
    if not forked[-1]:
        signal.pause()
with gauging(Path(sys.argv[1])) as (gauge, evidence):
    gauge.tick(Phase.RUN)
print(tree.use(map(psutil.Process, forked)).memory, evidence.script_memory, evidence.peaks.script_memory)
for pid in forked:
    os.kill(pid, signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is shared")
def test_what_forked_children_of_the_script_share_counts_once(tmp_path: Path) -> None:
    """In a process of its own: below this one are the servers of other tests, too."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURES_ITS_FORKS, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "plugins"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    each, once, peak = map(int, done.stdout.split())
    assert each > 400_000_000
    assert 80_000_000 < once < 200_000_000
    assert peak == once
