"""What a cluster on Dataproc left in the bucket: output of init actions and drivers, and what its nodes wrote down.

All of it is a help and none of it a must: what cannot be read is left out, and nothing here raises.
"""

from __future__ import annotations

from collections.abc import Sequence

from mayfly.contract import FrozenTarget
from mayfly.contract.nodes import NodeReport
from mayfly.errors import MayflyError
from mayfly.gcp.failures import OUTPUT_LINES, OUTPUTS, InitOutput
from mayfly.staging.credentials import target_store
from mayfly.staging.rundir import RunDir

_OUTPUT_BYTES = 64 << 10


def init_tails(target: FrozenTarget, outputs: Sequence[InitOutput]) -> list[tuple[InitOutput, tuple[str, ...]]]:
    """Each with its last lines; of the first few, that is."""
    read = [(output, _tail(target, output.uri, lines=OUTPUT_LINES)) for output in outputs[:OUTPUTS]]
    return [*read, *((output, ()) for output in outputs[OUTPUTS:])]


def driver_output(target: FrozenTarget, uri: str, *, lines: int = 20) -> tuple[str, ...]:
    """The last lines of a job's output; `uri` is the prefix of its numbered objects."""
    if not uri:
        return ()
    folder, _, start = uri.rpartition("/")
    try:
        names = sorted(target_store(target, url=folder).list(start))
    except MayflyError:
        return ()
    return _tail(target, f"{folder}/{names[-1]}", lines=lines) if names else ()


def node_reports(target: FrozenTarget, cluster: str) -> list[NodeReport]:
    """What the set-up of each node of this cluster said, by name."""
    try:
        rundir = RunDir(target_store(target), cluster)
        return [rundir.node_report(node) for node in rundir.nodes()]
    except MayflyError:
        return []


def _tail(target: FrozenTarget, uri: str, *, lines: int) -> tuple[str, ...]:
    folder, _, name = uri.rpartition("/")
    try:
        data = target_store(target, url=folder).get(name)
    except MayflyError:
        return ()
    text = (data or b"")[-_OUTPUT_BYTES:].decode(errors="replace")
    return tuple(line for line in text.splitlines() if line.strip())[-lines:]
