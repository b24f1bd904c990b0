"""A driver's status as one line for people. Pure."""

from __future__ import annotations

import re

from mayfly.contract import Phase, Status


def progress_line(status: Status) -> str:
    """What changes is in; the elapsed time is not, so that equal lines mean that nothing moved."""
    parts = [str(status.phase)]
    tasks = status.tasks
    if tasks.done or tasks.running or tasks.waiting:
        parts.append(f"tasks {tasks.done} done, {tasks.running} running, {tasks.waiting} waiting")
    if tasks.failed:
        parts.append(f"{tasks.failed} failed")
    if tasks.recomputed:
        parts.append(f"{tasks.recomputed} recomputed")
    if status.biggest:
        parts.append(status.biggest)
    if (status.workers_wanted or status.workers) and not re.match(r"\d+ of \d+ workers", status.note):
        parts.append(f"{status.workers}/{status.workers_wanted} workers")
    if status.memory_limit:
        parts.append(f"{status.memory / 1e9:.1f} of {status.memory_limit / 1e9:.1f} GB")
    if status.spilled > 1e6:
        parts.append(f"{status.spilled / 1e9:.2f} GB spilled")
    if status.phase is Phase.RUN:
        parts.append(f"cpu {status.cpu_workers:.1f} workers, {status.cpu_script:.1f} script")
    if status.note:
        parts.append(status.note)
    return " | ".join(parts)
