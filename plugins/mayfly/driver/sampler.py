"""What the cluster does right now, from the scheduler's own counters: nothing runs per task."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_GROWING = ("done", "failed", "recomputed")
_UNFINISHED = ("waiting", "no-worker", "queued", "processing")


class Sampler:
    """Looks at one scheduler again and again. `client.restart()` clears its counters; ours go on. `clock`: seconds."""

    def __init__(self, scheduler: Any, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._scheduler, self._clock = scheduler, clock
        self._at = clock()
        self._cpu_seconds: dict[str, float] = {}
        self._before = dict.fromkeys(_GROWING, 0)
        self._last = dict.fromkeys(_GROWING, 0)

    def sample(self, *, wanted: int) -> dict[str, Any]:
        """One look. Sizes in bytes, `cpu` in cores, `cpu_seconds` per worker; see `tasks` for the counts."""
        workers = list(self._scheduler.workers.values())
        memory = [int(ws.metrics.get("memory", 0)) for ws in workers]
        return {
            **self._counts(),
            "biggest": biggest(self._scheduler),
            "workers": len(workers),
            "wanted": wanted,
            "memory": sum(memory),
            "worker_memory": max(memory, default=0),
            "memory_limit": sum(int(ws.memory_limit or 0) for ws in workers),
            "spilled": sum(int(ws.metrics.get("spilled_bytes", {}).get("disk", 0)) for ws in workers),
            "cpu": sum(float(ws.metrics.get("cpu", 0)) for ws in workers) / 100,
            **self._worked(workers),
            "transfers": sum(_transfers(ws.metrics.get("transfer", {})) for ws in workers),
        }

    def _worked(self, workers: list[Any]) -> dict[str, Any]:
        """CPU seconds by the worker's name `at` this time: what workers report is of a moment, and between two looks
        of the stall watch are many."""
        now = self._clock()
        seconds, self._at = now - self._at, now
        before = self._cpu_seconds
        self._cpu_seconds = {
            name: round(before.get(name, 0.0) + float(ws.metrics.get("cpu", 0)) / 100 * seconds, 3)
            for name, ws in ((str(ws.name), ws) for ws in workers)
        }
        return {"at": now, "cpu_seconds": self._cpu_seconds}

    def _counts(self) -> dict[str, int]:
        now = tasks(self._scheduler)
        if now["done"] < self._last["done"]:
            for name in _GROWING:
                self._before[name] += self._last[name]
        self._last = {name: now[name] for name in _GROWING}
        return now | {name: now[name] + self._before[name] for name in _GROWING}


def tasks(scheduler: Any) -> dict[str, int]:
    """done, running, waiting, failed, recomputed; all but running and waiting only grow.

    `state_counts` counts transitions *into* a state and survives that tasks are forgotten. A task that is computed
    anew enters "waiting" once more, and so does one whose worker was lost before it had finished; the latter left
    "processing" without reaching "memory" or "erred". What remains was finished before. It is an estimate: exact when
    nothing runs, never above the truth for long.
    """
    total = dict.fromkeys(("done", "running", "waiting", "failed", "recomputed"), 0)
    for prefix in scheduler.task_prefixes.values():
        entered, now = prefix.state_counts, prefix.states
        done = entered.get("memory", 0)
        running = now.get("processing", 0)
        interrupted = max(0, entered.get("processing", 0) - done - entered.get("erred", 0) - running)
        again = max(entered.get("waiting", 0) - _created(prefix) - interrupted, 0)
        total["done"] += int(done)
        total["running"] += running
        total["waiting"] += now.get("waiting", 0) + now.get("queued", 0) + now.get("no-worker", 0)
        total["failed"] += entered.get("erred", 0)
        total["recomputed"] += min(again, done)
    return total


def _created(prefix: Any) -> int:
    """Tasks of this prefix ever made: those forgotten and those still known."""
    alive: int = sum(count for state, count in prefix.states.items() if state != "forgotten")
    return int(prefix.state_counts.get("forgotten", 0)) + alive


def biggest(scheduler: Any) -> str:
    """The prefix with the most unfinished tasks, e.g. "read_csv 12/40"; empty when all is done."""
    best = ""
    most = 0
    for name, prefix in scheduler.task_prefixes.items():
        unfinished = sum(prefix.states.get(state, 0) for state in _UNFINISHED)
        if unfinished > most:
            total = sum(prefix.states.values())
            best, most = f"{name} {total - unfinished}/{total}", unfinished
    return best


def _transfers(metrics: dict[str, Any]) -> int:
    keys = ("incoming_count_total", "outgoing_count_total", "incoming_bytes")
    return sum(int(metrics.get(key, 0)) for key in keys)
