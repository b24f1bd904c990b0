"""How a container ended, read out of what YARN and skein say of it. Pure.

Exit codes: org.apache.hadoop.yarn.api.records.ContainerExitStatus, and 128 + signal of a shell. skein passes on YARN's
diagnostics, which name the code only for a process that ran; the rest is recognised by YARN's words.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Cause(StrEnum):
    PREEMPTED = "preempted"
    NODE_LOST = "its node was lost"
    DECOMMISSIONED = "its node was decommissioned"
    DISKS = "its node's disks failed"
    MASTER_DIED = "the application master died"
    ENDED_BY_US = "we ended it"
    MEMORY = "killed for its memory"
    KILLED = "killed by a signal"
    EXITED = "ended by itself"
    UNKNOWN = "not known"

    @property
    def explained(self) -> bool:
        """By YARN: no fault of the job."""
        return self not in (Cause.MEMORY, Cause.KILLED, Cause.EXITED, Cause.UNKNOWN)


_CODES = {
    -100: Cause.NODE_LOST,
    -101: Cause.DISKS,
    -102: Cause.PREEMPTED,
    -103: Cause.MEMORY,
    -104: Cause.MEMORY,
    -105: Cause.ENDED_BY_US,
    -106: Cause.NODE_LOST,  # by the ResourceManager: the node, or the application, is no more
    -107: Cause.MASTER_DIED,
    -108: Cause.PREEMPTED,  # an opportunistic container made room for a guaranteed one
    137: Cause.KILLED,
    143: Cause.KILLED,
}
_WORDS = (
    # skein's words for any exit code above 0, also for 128 + signal: the code itself is in YARN's logs only.
    (r"Container failed during execution", Cause.EXITED),
    (r"preempted", Cause.PREEMPTED),
    (
        r"beyond the '?(PHYSICAL|VIRTUAL)'? memory limit|(physical|virtual) memory used|Killed due to memory",
        Cause.MEMORY,
    ),
    (r"OOM.?killed|oom_kill|out of memory", Cause.MEMORY),
    (r"\*?lost\*? node|[Nn]ode.*(is|was) lost|released on .*(unusable|lost|rebooted)|node.*removed", Cause.NODE_LOST),
    (r"decommission", Cause.DECOMMISSIONED),
    (r"disk.*(fail|full|bad)|usable space|local-dirs|No space left on device", Cause.DISKS),
    (
        r"killed by the (ApplicationMaster|appmaster)|Killed by user|Container killed by the ApplicationMaster",
        Cause.ENDED_BY_US,
    ),
)
_CODE = re.compile(
    r"(?:exit (?:code|status)(?: is|:)?|exitCode[:=]|exited with(?: a non-zero)?(?: exit code)?)\s*(-?\d+)", re.I
)


def code_of(message: str) -> int | None:
    """The exit code that YARN names, None when it names none."""
    found = _CODE.search(message)
    return int(found[1]) if found else None


def cause_of(message: str) -> Cause:
    """Of a container that has ended with these diagnostics. Words come first: they are more exact than 143."""
    for pattern, cause in _WORDS:
        if re.search(pattern, message):
            return cause
    code = code_of(message)
    if code is None:
        return Cause.UNKNOWN
    if code in _CODES:
        return _CODES[code]
    return Cause.KILLED if 128 < code < 160 else Cause.EXITED


def said(message: str, limit: int = 200) -> str:
    """The first telling line, for people."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lines = [re.sub(r"^\[[^\]]*\]\s*", "", line) for line in lines]
    telling = [line for line in lines if cause_of(line) is not Cause.UNKNOWN] or lines or [""]
    return telling[0][:limit]
