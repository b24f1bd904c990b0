"""The part of the table of failures that only YARN knows. Pure, stdlib only; see `mayfly.failures.rules`.

The launcher says what it knows: the class of the failure and a sentence that already says what to do. Where it can only
quote YARN or Hadoop, their words are recognised here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mayfly.contract import FailureClass
from mayfly.failures.advice import more_worker_memory
from mayfly.failures.logtext import bounded, last_lines, matching
from mayfly.failures.reading import YARN_MEMORY, Reading, Rule, by, host_said
from mayfly.units import format_duration, format_size

_PREEMPTED = r"preempted|exit (code|status)( is)? -102\b"
_DISK = r"No space left on device|no usable space|local-dirs .*(bad|full|usable space)|exit (code|status)( is)? -101\b"
_KILLED = (
    r"killed by signal 9\b|"  # a nanny's words; codes above 0 skein replaces by words of its own
    r"\b(exit (code|status)|exited with)( is| a non-zero exit code)? (137|143)\b|[Kk]illed by external signal"
)
_CRASHED = r"killed by signal (4|6|7|8|11)\b"
_NO_ROOM = r"pending|waits for|has not yet given|no node|full|limit|maximum"
_QUEUE = r"\b(its|at|over|user|queue|AM)\b.*\b(maximum|limit|share|quota)\b"


def _launch(kind: FailureClass) -> Callable[[Reading], bool]:
    """The launcher itself named the class."""
    return lambda r: _at_the_start(r) and r.facts.preflight_kind == kind


def _says(pattern: str) -> Callable[[Reading], bool]:
    """Nobody named a class that says more, but these words were used."""
    return lambda r: (
        _at_the_start(r) and r.facts.preflight_kind in ("", FailureClass.START_FAILED) and _found(r, pattern)
    )


def _at_the_start(r: Reading) -> bool:
    return r.facts.launcher == "yarn" and by("start")(r)


def _whoever(pattern: str) -> Callable[[Reading], bool]:
    """These words, whatever class was named."""
    return lambda r: _at_the_start(r) and bool(re.search(pattern, r.facts.detail))


def _found(r: Reading, pattern: str) -> bool:
    lines = (*r.facts.detail.splitlines(), r.facts.waiting, *r.facts.host_log_tail)
    return any(re.search(pattern, line) for line in lines)


def _waited(r: Reading) -> bool:
    """For containers; those that are there and do not get up are another matter."""
    return _at_the_start(r) and not r.facts.preflight_kind and bool(re.search(_NO_ROOM, r.facts.waiting))


def _waited_said(r: Reading) -> tuple[str, ...]:
    return bounded(line for line in [r.facts.waiting, *r.facts.detail.splitlines()] if line)


def _launch_said(r: Reading) -> tuple[str, ...]:
    """The launcher's sentence says it all; the log only where it does not."""
    detail = [line for line in r.facts.detail.splitlines() if line]
    return bounded(detail) if detail else host_said(r)


def _exits(pattern: str) -> Callable[[Reading], tuple[str, ...]]:
    return lambda r: (
        *(matching(r.facts.worker_exits, pattern) or matching(r.everything, pattern)),
        *(r.traceback.quoted(frames=1) if r.traceback else last_lines(r.facts.log_tail, 3)),
    )


def _lost(pattern: str) -> Callable[[Reading], bool]:
    """The script ended for lack of workers, and this is how workers ended."""
    return lambda r: (
        r.facts.launcher == "yarn"
        and r.raised("KilledWorker", "NoWorkerError", "NoValidWorkerError", "TimeoutError", "WorkerStartTimeoutError")
        and any(re.search(pattern, line) for line in r.facts.worker_exits)
    )


def yarn_memory_advice(r: Reading) -> str:
    """For containers that YARN, or the kernel for it, ended for their memory."""
    return (
        "YARN counts all processes of the container, Dask only what its worker holds: native libraries, subprocesses "
        "and a sudden large object are not seen in time. " + more_worker_memory(r.facts)
    )


AT_THE_START: tuple[Rule, ...] = (
    Rule(
        name="yarn: no default file system",
        match=_says(r"fs\.defaultFS|NullPointerException.*(FileSystem|[Ss]taging)"),
        cls=FailureClass.START_FAILED,
        evidence=_launch_said,
        advice=lambda _: (
            "YARN needs a file system that all nodes share for what it starts. Set `fs.defaultFS` in core-site.xml of "
            "the Hadoop configuration on the driver's machine: hdfs://…, or the cloud's own; docs/yarn.md has a way "
            "for a single machine without HDFS."
        ),
        retryable=False,
        why="a configuration does not change by itself",
    ),
    Rule(
        name="yarn: no client",
        match=lambda r: (
            _whoever(r"no yarn-site\.xml|Hadoop's own XML")(r)
            or _says(
                r"`yarn` is not on PATH|needs skein|needs setuptools|`yarn classpath|JAVA_HOME|UnsupportedClassVersion"
            )(r)
        ),
        cls=FailureClass.START_FAILED,
        evidence=_launch_said,
        advice=lambda _: (
            "The driver's machine is no edge node yet: `yarn classpath` must work there for the user of the driver, "
            "with Java 8 or newer, and the driver's Python needs `mayfly[yarn]`. docs/yarn.md lists what it takes."
        ),
        retryable=False,
        why="nothing installs itself",
    ),
    Rule(
        name="yarn: nobody answers",
        match=_says(
            r"ResourceManager[^.;]*(does not answer|no answer|gave no answer|not reach)|[Nn]o ResourceManager|"
            r"YarnUnavailable|Connection refused|ConnectException|failed on (connection|socket timeout) exception"
        ),
        cls=FailureClass.START_FAILED,
        evidence=_launch_said,
        advice=lambda _: (
            "YARN's ResourceManager did not answer. See whether it runs (its web page, `yarn node -list`), and whether "
            "HADOOP_CONF_DIR on the driver's machine names the right cluster. A retry asks again."
        ),
        retryable=True,
        why="a ResourceManager comes back, or its standby takes over",
    ),
    Rule(
        name="yarn: environment damaged on the cluster",
        match=_says(r"not in gzip format|Unexpected (EOF|end of)|[Ff]ailed to localize|changed on src filesystem"),
        cls=FailureClass.START_FAILED,
        evidence=_launch_said,
        advice=lambda _: (
            "The job's packed environment on the cluster's file system was damaged or changed; the next attempt brings "
            "it anew. If that does not help, build it anew with `mayfly env build`."
        ),
        retryable=True,
        why="the next attempt brings the archive anew",
    ),
    Rule(
        name="yarn: environment broken",
        match=_says(
            r"[Cc]hecksum|sha256|bin/python3?: (No such file|not found|cannot execute|Permission denied)|"
            r"environment.*(damaged|broken|incomplete)"
        ),
        cls=FailureClass.START_FAILED,
        evidence=_launch_said,
        advice=lambda _: (
            "The job's packed environment did not arrive whole, or does not run on the nodes. Build it anew with "
            "`mayfly env build`; it must be for the nodes' platform (x86_64 Linux)."
        ),
        retryable=False,
        why="the same archive would be unpacked again",
    ),
    Rule(
        name="yarn: a node's disk is full",
        match=_says(_DISK),
        cls=FailureClass.START_FAILED,
        evidence=_launch_said,
        advice=lambda _: (
            "A disk of a node is full, so that YARN could not start a container there. Free space in its "
            "`yarn.nodemanager.local-dirs`; YARN takes a node out by itself when its disks are above 90 % "
            "(`…disk-health-checker.max-disk-utilization-per-disk-percentage`)."
        ),
        retryable=True,
        why="YARN marks the node, and another may have room",
    ),
    Rule(
        name="yarn: not allowed",
        match=lambda r: (
            _launch(FailureClass.PERMISSION)(r)
            or _whoever(r"Kerberos|refuses (GET|PUT|POST)")(r)
            or _says(
                r"AccessControlException|does not have permission|cannot submit applications|Kerberos|GSSException"
            )(r)
        ),
        cls=FailureClass.PERMISSION,
        evidence=_launch_said,
        advice=lambda _: (
            "The user of the driver may not do this on the cluster. Choose a queue that is open to it "
            "(`cluster.yarn.queue`), or ask who runs the cluster. Clusters that demand Kerberos are not supported yet."
        ),
        retryable=False,
        why="permissions do not heal by themselves",
    ),
    Rule(
        name="yarn: refused",
        match=lambda r: (
            _launch(FailureClass.QUOTA)(r)
            or _says(r"unknown queue|InvalidResourceRequest|maximum allowed allocation|Failure in container allocator")(
                r
            )
        ),
        cls=FailureClass.QUOTA,
        evidence=_launch_said,
        advice=lambda _: (
            "Nothing was started, since this could never run. `cluster.worker` (size) and `cluster.yarn` (queue, node "
            "label) in job.yaml, or `yarn` of the target, must fit what the cluster allows."
        ),
        retryable=False,
        why="limits do not change by themselves",
    ),
    Rule(
        name="yarn: no way back",
        match=_launch(FailureClass.NETWORK),
        cls=FailureClass.NETWORK,
        evidence=_launch_said,
        advice=lambda _: (
            "The nodes must reach the driver's machine, and it the nodes, at the addresses and ports above. "
            "`yarn.ports` and `yarn.address` of the target (config/targets.yaml) fix them, so that a firewall can let "
            "them through."
        ),
        retryable=False,
        why="a firewall stays as it is",
    ),
    Rule(
        name="yarn: versions differ",
        match=_launch(FailureClass.VERSION_MISMATCH),
        cls=FailureClass.VERSION_MISMATCH,
        evidence=_launch_said,
        advice=lambda _: (
            "Driver and workers must run the same Python and the same Dask. `mayfly env build` packs one environment "
            "for both; a target's `python` must be the same on all nodes."
        ),
        retryable=False,
        why="the same environments would be compared again",
    ),
    Rule(
        name="yarn: preempted",
        match=lambda r: _launch(FailureClass.PREEMPTED)(r) or _says(_PREEMPTED)(r),
        cls=FailureClass.PREEMPTED,
        evidence=_launch_said,
        advice=lambda _: (
            "Another queue took its share back. A retry starts when there is room; a queue with more guaranteed "
            "capacity (`cluster.yarn.queue`) is preempted less."
        ),
        retryable=True,
        why="not the job's doing, and room comes back",
    ),
    Rule(
        name="yarn: application master lost",
        match=lambda r: _launch(FailureClass.WORKER_LOST)(r) or _says(r"application master (has )?died")(r),
        cls=FailureClass.WORKER_LOST,
        evidence=_launch_said,
        advice=lambda _: (
            "The application's master process ended twice, and all workers with it. Its nodes were lost or it was "
            "killed from outside: the ResourceManager's page of the applications above says which."
        ),
        retryable=True,
        why="nodes go away; the job is not to blame",
    ),
    Rule(
        name="yarn: no container in time, for the queue",
        match=lambda r: _waited(r) and bool(re.search(_QUEUE, r.facts.waiting)),
        cls=FailureClass.QUOTA,
        evidence=_waited_said,
        advice=lambda r: (
            "The queue or its users' limit left no room"
            + (f" for {format_duration(r.facts.limit_s)}" if r.facts.limit_s else "")
            + ". Ask for fewer or smaller workers (a lower `min` in `cluster.workers` starts with less), choose "
            "another queue (`cluster.yarn.queue`), or raise `start_timeout`."
        ),
        retryable=True,
        why="others end, and the queue has room again",
    ),
    Rule(
        name="yarn: no container in time",
        match=lambda r: _waited(r) or _says(r"no node( with the label \S+)? is running")(r),
        cls=FailureClass.STOCKOUT,
        evidence=_waited_said,
        advice=lambda r: (
            "The cluster had no room for the fewest workers"
            + (f" within {format_duration(r.facts.limit_s)}" if r.facts.limit_s else "")
            + ". Lower `min` in `cluster.workers`, make workers smaller, or raise `start_timeout` if nodes come later."
        ),
        retryable=True,
        why="others end, and nodes come",
    ),
    Rule(
        name="yarn: did not start",
        match=lambda r: _launch(FailureClass.START_FAILED)(r) or (_at_the_start(r) and bool(r.facts.waiting)),
        cls=FailureClass.START_FAILED,
        evidence=lambda r: _waited_said(r) if r.facts.waiting else _launch_said(r),
        advice=lambda _: (
            "Dask did not start on YARN; the lines above are the launcher's and YARN's own. `yarn logs -applicationId` "
            "with the application's id shows what its containers said. docs/yarn.md lists what the nodes need."
        ),
        retryable=True,
        why="starting depends on nodes and network more than on the job",
    ),
)
"""When Dask did not get ready, or the launcher gave up."""

IN_THE_RUN: tuple[Rule, ...] = (
    Rule(
        name="yarn: container over its memory",
        match=_lost(YARN_MEMORY),
        cls=FailureClass.OUT_OF_MEMORY_WORKER,
        evidence=_exits(YARN_MEMORY),
        advice=yarn_memory_advice,
        retryable=False,
        why="the same partition needs the same memory in any container",
    ),
    Rule(
        name="yarn: a node's disk filled up",
        match=_lost(_DISK),
        cls=FailureClass.WORKER_LOST,
        evidence=_exits(_DISK),
        advice=lambda _: (
            "A node's local disk filled up: Dask spills there what does not fit into memory. Give workers more memory "
            "(`cluster.worker.memory`), make the pieces smaller, or free space in `yarn.nodemanager.local-dirs`."
        ),
        retryable=True,
        why="another node may have room",
    ),
    Rule(
        name="yarn: workers preempted",
        match=_lost(_PREEMPTED),
        cls=FailureClass.PREEMPTED,
        evidence=_exits(_PREEMPTED),
        advice=lambda _: (
            "Other queues took the workers' containers back, and none came again in time. A retry waits for room; a "
            "queue with more guaranteed capacity (`cluster.yarn.queue`) is preempted less."
        ),
        retryable=True,
        why="not the job's doing, and room comes back",
    ),
    Rule(
        name="yarn: containers killed",
        match=lambda r: _lost(_KILLED)(r) and not _lost(_CRASHED)(r),
        cls=FailureClass.WORKER_LOST,
        evidence=_exits(_KILLED),
        advice=lambda r: (
            "Signals 9 and 15 (exit codes 137, 143; SIGKILL, SIGTERM) are kills from outside: an administrator, a node "
            "that shut down, or, where YARN enforces memory by control groups, the kernel. "
            + (
                f"The largest worker used {format_size(r.facts.peaks.worker_memory)} of "
                f"{format_size(r.facts.worker_memory_limit)}; if it repeats, give workers more memory."
                if r.facts.worker_memory_limit and r.facts.peaks.worker_memory
                else "If it repeats, give workers more memory (`cluster.worker.memory`)."
            )
        ),
        retryable=True,
        why="nothing says that the job did it",
    ),
)
"""When the script ended for lack of workers."""
