"""Two ways to do one thing, measured in turn on a machine that is never quiet.

One run measures both, interleaved (A B, B A, A B, ...), so that a slow minute of the machine hits both. What is
compared is the median over the *pairs* of a ratio or a difference, not the best or the mean of either.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

PAIRS = 7
Measure = Callable[[], float]
Series = dict[str, list[float]]


def pairs_wanted() -> int:
    """The number of pairs: the script's argument, else `PAIRS`."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS


def interleave(ways: Mapping[str, Measure], *, pairs: int, warm_up: bool = False) -> Series:
    """Measure each way `pairs` times, in turn; each second round in the other order."""
    series: Series = {name: [] for name in ways}
    names = list(ways)
    if warm_up:
        for name in names:
            ways[name]()
    for number in range(pairs):
        for name in names if number % 2 == 0 else reversed(names):
            series[name].append(ways[name]())
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return series


def timed(call: Callable[[], object]) -> Measure:
    """Seconds that `call` takes."""

    def measure() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return measure


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """ours / theirs of each pair."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """ours - theirs of each pair."""
    return [a - b for a, b in zip(ours, theirs, strict=True)]


class Table:
    """The result, a line at a time: what, the measured value, and the wanted bound where there is one."""

    def __init__(self, title: str, *, pairs: int) -> None:
        load = os.getloadavg()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        print(f"\n{title}: {pairs} pairs, medians")
        print(
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.system()} {platform.machine()}, {cores} cores, "
            f"load {load[0]:.1f}, Python {platform.python_version()}"
        )

    def value(self, what: str, number: float | Sequence[float], unit: str) -> None:
        """A number without a bound; of several the median."""
        print(f"  {what:<72} {_median(number):9.3g} {unit:<3} {_spread(number)}".rstrip(), flush=True)

    def bound(
        self,
        what: str,
        number: float | Sequence[float],
        unit: str,
        *,
        most: float | None = None,
        least: float = 0.0,
    ) -> None:
        """A number (of several the median) with its bound. A miss is printed, not raised: times are the machine's."""
        found = _median(number)
        good = found >= least if most is None else found <= most
        wanted = f"wanted {'>= ' + f'{least:g}' if most is None else '<= ' + f'{most:g}'} {unit}"
        verdict = "ok" if good else "MISSED"
        print(f"  {what:<72} {found:9.3g} {unit:<3} {_spread(number)} {wanted}: {verdict}", flush=True)


def _median(number: float | Sequence[float]) -> float:
    return number if isinstance(number, (int, float)) else median(number)


def _spread(number: float | Sequence[float]) -> str:
    """The middle half of the pairs: how much the median is worth."""
    if isinstance(number, (int, float)) or len(number) < 3:
        return " " * 18
    low, _, high = statistics.quantiles(number, n=4)
    return f"({low:.3g} .. {high:.3g})".ljust(18)
