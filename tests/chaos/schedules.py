"""Random schedules of what goes wrong in a cloud and around it, drawn from a seed: the same seed, the same schedule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

VERBS = ("CreateCluster", "GetCluster", "ListClusters", "DeleteCluster", "SubmitJob", "GetJob", "CancelJob")
POLICY_VERBS = ("CreateAutoscalingPolicy", "DeleteAutoscalingPolicy")
PASSING = ("429", "500", "503", "504", "cut", "delay", "hang")
"""Asked again, such a call is answered."""
LASTING = ("403", "401")
BOOT = (
    {"do": "stuck"},
    *({"do": "error", "reason": reason} for reason in ("quota", "stockout", "permission", "agent", "internal")),
    {"do": "init_fails", "node": "m"},
    {"do": "init_hangs", "seconds": 0.5},
    {"do": "delay", "seconds": 1.0},
)
JOB = (
    {"do": "stuck"},
    {"do": "lost"},
    {"do": "error", "message": "Task not found"},
    {"do": "cluster_error", "seconds": 0.3},
    {"do": "body", "seconds": 0.2, "exit": 1},
)
RUNNING = (
    {"do": "error", "reason": "agent", "seconds": 0.5},
    {"do": "lose", "node": "m", "seconds": 0.3},
    {"do": "preempt", "node": "m", "seconds": 0.1},
    {"do": "cut", "node": "m", "seconds": 0.1},
)
SHUTDOWN = (
    {"do": "stuck", "seconds": 1.5},
    {"do": "delay", "seconds": 0.7},
    {"do": "error", "reason": "internal", "times": 1},
)


@dataclass(frozen=True, kw_only=True)
class Event:
    """What befalls a task at its n-th poke (from 1): `killed` (Airflow tries it again, if it may), `marked` (a user
    marks it failed: it is not tried again)."""

    step: str
    poke: int
    what: str


@dataclass(frozen=True, kw_only=True)
class Schedule:
    seed: int
    rules: tuple[dict[str, Any], ...] = ()
    events: tuple[Event, ...] = ()
    job_seconds: float = 0.1
    job_outcome: str = "success"
    grows: bool = False
    """The cluster has workers, as many as an autoscaling policy of its own allows."""
    again: bool = False
    """The group is cleared when the run is over, and the next generation runs without a fault."""
    harmless: bool = field(default=False)
    """Nothing of it may keep the run from succeeding."""

    def __str__(self) -> str:
        rules = "; ".join(", ".join(f"{key} {value}" for key, value in rule.items()) for rule in self.rules)
        events = "; ".join(f"{event.step} {event.what} at poke {event.poke}" for event in self.events)
        more = " | grows" * self.grows + " | again" * self.again
        return f"seed {self.seed}: [{rules}] [{events}] job {self.job_outcome} in {self.job_seconds} s{more}"


def draw(seed: int) -> Schedule:
    """A third meets passing troubles of calls alone, a third something worse, a third both and killed tasks."""
    dice = random.Random(seed)
    kind = dice.choice(("passing", "worse", "all"))
    grows = dice.random() < 0.4
    rules: list[dict[str, Any]] = []
    if kind != "worse":
        rules += [_passing(dice, (*VERBS, *POLICY_VERBS) if grows else VERBS) for _ in range(dice.randint(1, 3))]
    if kind != "passing":
        rules += [_worse(dice) for _ in range(dice.choice((1, 1, 2)))]
    events = [_event(dice) for _ in range(dice.randint(0, 2))] if kind == "all" else []
    outcome = dice.choice(("success",) * 7 + ("failed",))
    return Schedule(
        seed=seed,
        rules=tuple(rules),
        events=tuple(events),
        job_seconds=dice.choice((0.05, 0.3, 1.0)),
        job_outcome=outcome,
        grows=grows,
        again=dice.random() < 0.15,
        harmless=kind == "passing" and outcome == "success" and _passes(rules),
    )


def _passing(dice: random.Random, verbs: Sequence[str]) -> dict[str, Any]:
    rule: dict[str, Any] = {"on": dice.choice(verbs), "do": dice.choice(PASSING), "times": 1}
    rule["when"] = dice.choice(("before", "after"))
    if rule["do"] == "delay":
        # The long one is longer than the client waits: the call takes effect when nobody listens any more.
        rule["seconds"] = dice.choice((0.3, 0.3, 2.5))
    if dice.random() < 0.5:
        rule["nth"] = dice.randint(1, 4)
    elif rule["do"] not in ("hang", "delay"):
        rule["times"] = dice.randint(1, 3)
    return rule


def _passes(rules: list[dict[str, Any]]) -> bool:
    """Whether a verb's deadline is sure to be longer than all of it: three pauses of the backend are 1.75 s at most."""
    slow = any(rule["do"] == "hang" or rule.get("seconds", 0.0) > 1.0 for rule in rules)
    return not slow and sum(rule["times"] for rule in rules) <= 3


def _worse(dice: random.Random) -> dict[str, Any]:
    on = dice.choice(("boot", "job", "running", "shutdown", "verb"))
    if on == "verb":
        rule = {"on": dice.choice(VERBS), "do": dice.choice((*LASTING, "503", "429")), "times": dice.choice((1, 6, 30))}
        if rule["do"] == "503":
            rule["when"] = dice.choice(("before", "after"))
        return rule
    known = {"boot": BOOT, "job": JOB, "running": RUNNING, "shutdown": SHUTDOWN}
    return {"on": on, "times": 1, **dice.choice(known[on])}


def _event(dice: random.Random) -> Event:
    step = dice.choice(("create", "create", "job", "job", "job", "collect", "delete", "delete"))
    what = dice.choice(("killed", "marked")) if step in ("create", "job") else "killed"
    return Event(step=step, poke=dice.choice((1, 1, 2, 4, 8)), what=what)
