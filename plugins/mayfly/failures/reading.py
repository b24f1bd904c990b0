"""What rules of failures look at: the facts of an attempt's end, and what was read out of them once. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from mayfly.contract import FailureClass, Peaks
from mayfly.failures.advice import signal_name
from mayfly.failures.logtext import Traceback, last_lines

YARN_MEMORY = (
    r"physical memory used|virtual memory used|beyond the '?(PHYSICAL|VIRTUAL)'? memory|killed for its memory|"
    r"exit (code|status)( is)? -10[34]\b"
)
"""How YARN says that a container was over its size; -103 and -104 are its own exit codes for that."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about the end of an attempt. Sizes in bytes, durations in seconds.

    `ended_by`: script | timeout | stalled | cancelled | carrier | expired | lease | closing | start | preflight | host
    | script_memory | gone. `exit_code` is the script's (negative = signal), `host_exit` the host's; None = still alive
    or never started. `preflight_kind`: input | output | version | script | "". `oom_kills`: processes of ours that the
    kernel killed for lack of memory. `limit_s`: the limit that ended it (timeout, stall, lease). `waiting`: why workers
    had not come yet, when it ended before they had. Where `ended_by` is start, `preflight_kind` is the class of failure
    that the launcher named.
    """

    ended_by: str
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    host_log_tail: tuple[str, ...] = ()
    host_exit: int | None = None
    phase: str = ""
    worker_exits: tuple[str, ...] = ()
    worker_memory_limit: int = 0
    script_memory_limit: int = 0
    peaks: Peaks = field(default_factory=Peaks)
    preflight_error: str = ""
    preflight_kind: str = ""
    limit_s: float = 0
    oom_kills: int = 0
    detail: str = ""
    waiting: str = ""
    launcher: str = "processes"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The facts with what was read out of them once."""

    facts: Facts
    traceback: Traceback | None

    def raised(self, *names: str) -> bool:
        """Whether one of these ended the script, also as the first cause of what did."""
        return self.traceback is not None and not {self.traceback.short_type, self.traceback.cause_type}.isdisjoint(
            names
        )

    @property
    def everything(self) -> tuple[str, ...]:
        return (*self.facts.worker_exits, *self.facts.host_log_tail, *self.facts.log_tail)

    def says(self, pattern: str) -> bool:
        """Whether the final exception or its message matches."""
        return self.traceback is not None and bool(re.search(pattern, self.traceback.text))

    def anywhere(self, pattern: str) -> bool:
        return any(re.search(pattern, line, re.IGNORECASE) for line in self.everything)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`why` justifies `retryable`; it is for whoever reads the table."""

    name: str
    match: Callable[[Reading], bool]
    cls: FailureClass
    evidence: Callable[[Reading], tuple[str, ...]]
    advice: Callable[[Reading], str]
    retryable: bool
    why: str


def by(*ways: str) -> Callable[[Reading], bool]:
    return lambda r: r.facts.ended_by in ways


def said(r: Reading) -> tuple[str, ...]:
    """The supervisor's own words, then the last output."""
    return (*(line for line in r.facts.detail.splitlines() if line), *last_lines(r.facts.log_tail, 6))


def host_said(r: Reading) -> tuple[str, ...]:
    ended = "" if r.facts.host_exit is None else f"the scheduler's process ended with {exit_words(r.facts.host_exit)}"
    tail = r.facts.host_log_tail or r.facts.log_tail
    quiet = [line for line in tail if not re.search(r"resource_tracker", line)]
    detail = [line for line in r.facts.detail.splitlines() if not line.startswith("the host process ended")]
    return tuple(line for line in (*detail[:3], ended, *last_lines(quiet)) if line)


def exit_words(code: int) -> str:
    return signal_name(-code) if code < 0 else f"exit code {code}"
