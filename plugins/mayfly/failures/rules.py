"""The table of failures, tried from top to bottom: the first rule that matches names the failure. Pure, stdlib only.

Order matters. What the supervisor itself did comes first (it knows), then what the kernel and Dask did to the script,
then what the script says of itself; the last rule matches everything.

Retryable means: the same job with the same settings may well succeed when run again. Infrastructure that went away:
yes. The user's code, limits and data: no, a retry would only spend the same money again. Each rule says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mayfly.contract import FailureClass
from mayfly.failures.advice import MAIN_GUARD, SIGNALS, more_worker_memory, signal_name, user_advice
from mayfly.failures.logtext import Traceback, bounded, last_lines, last_traceback, matching
from mayfly.failures.reading import Reading, Rule, by, exit_words, host_said, said
from mayfly.failures.rules_data import AT_PREFLIGHT
from mayfly.failures.rules_yarn import AT_THE_START, IN_THE_RUN
from mayfly.units import format_duration, format_size

# ---------------------------------------------------------------- what rules look at

_BUDGET = r"exceeded \d+% (of )?(its )?memory|memory budget|MemoryError|out of memory|oom.?kill|std::bad_alloc"
_CRASHED = (
    r"killed by signal (4|6|7|8|11)\b|SIG(ILL|ABRT|BUS|FPE|SEGV)|exited with status [1-9]|exit(ed with)? code [1-9]|"
    r"Container failed during execution"  # skein's words for any exit code above 0
)
_NO_SPACE = r"No space left on device|Disk quota exceeded|ENOSPC"
_LOST = (
    r"CommClosedError|Timed out trying to connect to (tcp|tls|ws|wss|ucx)://|"
    r"scheduler-connection-lost|FutureCancelledError|FuturesCancelledError|lost (its )?connection to the scheduler"
)
_OOM_ERRORS = {"MemoryError", "_ArrayMemoryError", "ArrowMemoryError"}
_OUTSIDE = {1, 2, 3, 9, 10, 12, 14, 15}  # signals that only somebody else sends


def _preflight(kind: str) -> Callable[[Reading], bool]:
    return lambda r: r.facts.ended_by == "preflight" and r.facts.preflight_kind == kind


def _workers_short_at_start(r: Reading) -> bool:
    return r.facts.oom_kills > 0 or any(re.search(_BUDGET, line) for line in r.facts.host_log_tail)


def _host_died(r: Reading) -> bool:
    """Also when the script saw it before the supervisor did, and ended by its own exception."""
    noticed = by("script")(r) and r.facts.host_exit is not None and (r.says(_LOST) or r.raised("ClosedClientError"))
    return r.facts.ended_by == "host" or noticed


def _scheduler_short(r: Reading) -> bool:
    """The host's own memory: its log also tells of workers over their budget."""
    killed = r.facts.host_exit == -9 and r.facts.oom_kills > 0
    said = r"^(\w+\.)*_?(Array)?MemoryError\b|std::bad_alloc|Cannot allocate memory"
    return killed or any(re.search(said, line) for line in r.facts.host_log_tail)


def _worker_memory(r: Reading) -> bool:
    killed = r.facts.oom_kills > 0 and r.anywhere(r"killed by signal 9|SIGKILL")
    return killed or r.anywhere(r"exceeded \d+% (of )?(its )?memory|memory budget")


def _script_memory(r: Reading) -> bool:
    limit = r.facts.script_memory_limit
    near = limit > 0 and r.facts.peaks.script_memory >= 0.85 * limit
    killed = r.facts.oom_kills > 0 and (_signal(r) or _signal_below(r)) == 9
    return killed or (near and _signal(r) == 9)


def _signal(r: Reading) -> int:
    """The signal that ended the script; 0 = none."""
    return max(0, -(r.facts.exit_code or 0))


def _signal_below(r: Reading) -> int:
    """The signal that may have ended a program of the script's: its shell, or the script, passes it on as 128 + n. No
    more than a guess, since the script may say `sys.exit(137)` for reasons of its own; 0 = none."""
    number = (r.facts.exit_code or 0) - 128
    return number if number in SIGNALS else 0


def _tail(r: Reading) -> tuple[str, ...]:
    return last_lines(r.facts.log_tail)


def _quoted(r: Reading) -> tuple[str, ...]:
    return r.traceback.quoted() if r.traceback else last_lines(r.facts.log_tail)


def _preflight_said(r: Reading) -> tuple[str, ...]:
    return bounded([*r.facts.preflight_error.splitlines(), *r.facts.detail.splitlines()]) or last_lines(
        r.facts.log_tail
    )


def _preflight_traceback(r: Reading) -> Traceback | None:
    return last_traceback(r.facts.preflight_error.splitlines())


def _workers_said(r: Reading, pattern: str) -> tuple[str, ...]:
    exits = matching(r.facts.worker_exits, pattern) or bounded(r.facts.worker_exits[-4:])
    more = () if exits else matching((*r.facts.host_log_tail, *r.facts.log_tail), pattern)
    said = r.traceback.quoted(frames=1) if r.traceback else last_lines(r.facts.log_tail, 3)
    return (*exits, *more, *said)


def _exit_said(r: Reading) -> tuple[str, ...]:
    code = r.facts.exit_code
    words = f"the script ended with {exit_words(code)}" if code is not None else "the script's exit code is not known"
    return (words, *_quoted(r))


# ---------------------------------------------------------------- the table

RULES: tuple[Rule, ...] = (
    # -- what the supervisor did, and why
    Rule(
        name="cancelled",
        match=by("cancelled", "closing"),
        cls=FailureClass.CANCELLED,
        evidence=said,
        advice=lambda r: (
            "The cluster was being deleted. To run again, clear the whole run (all tasks of the group)."
            if r.facts.ended_by == "closing"
            else "The job was asked to stop. To run it again, clear the whole run or trigger a new one."
        ),
        retryable=False,
        why="somebody wanted it to end; running it again by ourselves would defy them",
    ),
    Rule(
        name="carrier",
        match=by("carrier"),
        cls=FailureClass.CANCELLED,
        evidence=said,
        advice=lambda _: (
            "The cloud's job ended under the driver: it was cancelled in the console or by the API, its JVM died, or "
            "the node shut down. To run it again, clear the whole run."
        ),
        retryable=False,
        why="a cancelled job looks like this from below; to run it again by ourselves would defy who cancelled it",
    ),
    Rule(
        name="lease",
        match=by("lease"),
        cls=FailureClass.ORCHESTRATOR_LOST,
        evidence=said,
        advice=lambda r: (
            f"Nothing renewed the job's lease for {format_duration(r.facts.limit_s)}, so the driver ended the job to "
            "bound the cost. See whether the scheduler and workers of Airflow (or the `mayfly run` in your terminal) "
            "were down or the DAG was paused."
        ),
        retryable=True,
        why="the job itself was healthy",
    ),
    Rule(
        name="expired",
        match=by("expired"),
        cls=FailureClass.ORCHESTRATOR_LOST,
        evidence=said,
        advice=lambda _: (
            "The cluster reached the maximum age of its plan, and nothing had deleted it. Clear the whole run to get a "
            "new cluster; if the job needs longer, raise `timeout` in job.yaml."
        ),
        retryable=False,
        why="the cluster's time is over; only a new generation can run",
    ),
    Rule(
        name="gone",
        match=by("gone"),
        cls=FailureClass.DRIVER_DIED,
        evidence=said,
        advice=lambda _: "The driver ended without writing a record; a retry starts a fresh one.",
        retryable=True,
        why="a machine or an outside kill, not the job",
    ),
    Rule(
        name="timeout",
        match=by("timeout"),
        cls=FailureClass.TIMEOUT,
        evidence=said,
        advice=lambda r: (
            f"The job ran longer than its limit of {format_duration(r.facts.limit_s)}. Raise `timeout` in job.yaml, "
            "give it more workers (`cluster.workers`), or less data."
        ),
        retryable=False,
        why="the same work under the same limit would end the same way",
    ),
    Rule(
        name="stalled",
        match=by("stalled"),
        cls=FailureClass.STALLED,
        evidence=said,
        advice=lambda r: (
            f"For {format_duration(r.facts.limit_s)} no task finished, nothing was printed, and neither CPU nor "
            "network moved. The call stacks in the log show where everybody waited (often a lock, or a read without a "
            "timeout). `stall_timeout: 0` in job.yaml turns the watch off."
        ),
        retryable=True,
        why="most stalls are lost messages or hung connections, and fresh workers have none",
    ),
    # -- before the script ran
    *AT_PREFLIGHT,
    Rule(
        name="input missing",
        match=_preflight("input"),
        cls=FailureClass.INPUT_MISSING,
        evidence=_preflight_said,
        advice=lambda _: (
            "Check the path under `inputs` in job.yaml. Every worker must be able to read it: a file on one machine's "
            "disk is not there on another; relative paths start at the project's folder."
        ),
        retryable=False,
        why="a wrong path stays wrong; let a sensor or an asset wait for data that comes late",
    ),
    Rule(
        name="output not writable",
        match=_preflight("output"),
        cls=FailureClass.OUTPUT_NOT_WRITABLE,
        evidence=_preflight_said,
        advice=lambda _: (
            "Check the path under `outputs` in job.yaml and its permissions: the script makes the folder, every worker "
            "writes into it."
        ),
        retryable=False,
        why="permissions do not heal by themselves",
    ),
    Rule(
        name="version mismatch",
        match=_preflight("version"),
        cls=FailureClass.VERSION_MISMATCH,
        evidence=_preflight_said,
        advice=lambda _: (
            "Script, scheduler and workers must run the same versions. Point the target's `python` "
            "(config/targets.yaml) at one environment, or rebuild the one that differs."
        ),
        retryable=False,
        why="the same environments would be compared again",
    ),
    Rule(
        name="script not runnable",
        match=_preflight("script"),
        cls=FailureClass.USER_ERROR,
        evidence=lambda r: found.quoted() if (found := _preflight_traceback(r)) else _preflight_said(r),
        advice=lambda r: (
            user_advice(_preflight_traceback(r)) or "The script cannot be started as it is; fix what is quoted above."
        ),
        retryable=False,
        why="the script would be the same",
    ),
    *AT_THE_START,
    Rule(
        name="environment incomplete",
        match=lambda r: (
            by("start", "preflight")(r)
            and any("ModuleNotFoundError" in line for line in (*r.facts.host_log_tail, r.facts.detail))
        ),
        cls=FailureClass.START_FAILED,
        evidence=host_said,
        advice=lambda _: (
            "The target's Python environment lacks a package that Dask needs to start. Install it there, or point the "
            "target's `python` (config/targets.yaml) at an environment with dask and distributed."
        ),
        retryable=False,
        why="a package does not install itself",
    ),
    Rule(
        name="start out of memory",
        match=lambda r: by("start", "preflight")(r) and _workers_short_at_start(r),
        cls=FailureClass.OUT_OF_MEMORY_WORKER,
        evidence=host_said,
        advice=lambda r: "The workers ran out of memory before the script began. " + more_worker_memory(r.facts),
        retryable=False,
        why="the same sizes on the same machine",
    ),
    Rule(
        name="start failed",
        match=by("start", "preflight"),
        cls=FailureClass.START_FAILED,
        evidence=lambda r: (*r.facts.preflight_error.splitlines()[:6], *host_said(r)),
        advice=lambda r: (
            "Dask did not get ready"
            + (f" within {format_duration(r.facts.limit_s)}" if r.facts.limit_s else "")
            + ". The machine may be overloaded or out of memory, ports blocked, or a `cluster.dask` setting wrong. "
            "Raise `start_timeout` in job.yaml if workers merely need longer."
        ),
        retryable=True,
        why="starting depends on the machine's load and the network more than on the job",
    ),
    # -- the scheduler
    Rule(
        name="scheduler out of memory",
        match=lambda r: _host_died(r) and _scheduler_short(r),
        cls=FailureClass.OUT_OF_MEMORY_SCHEDULER,
        evidence=host_said,
        advice=lambda r: (
            f"The scheduler's process ran out of memory ({format_size(r.facts.peaks.host_memory)} seen). Make the "
            "graph smaller: larger partitions, no large objects inside `delayed` or `map` arguments (`client.scatter` "
            "or read them on the workers)."
        ),
        retryable=False,
        why="the same graph needs the same memory",
    ),
    Rule(
        name="scheduler killed",
        match=lambda r: _host_died(r) and r.facts.host_exit is not None and -r.facts.host_exit in _OUTSIDE,
        cls=FailureClass.SCHEDULER_DIED,
        evidence=host_said,
        advice=lambda r: (
            f"Something outside the job sent {signal_name(-(r.facts.host_exit or 0))} to the scheduler's process: an "
            "administrator, a shutdown, or the memory limit of a container. A retry starts a new one."
        ),
        retryable=True,
        why="not the job's doing",
    ),
    Rule(
        name="scheduler died",
        match=_host_died,
        cls=FailureClass.SCHEDULER_DIED,
        evidence=host_said,
        advice=lambda r: (
            "The scheduler's process ended while the job ran. Dask unpacks graphs there, so modules of the job are "
            "imported in it: one that calls `os._exit` / `sys.exit` at import, or crashes in native code, takes the "
            "scheduler with it. Keep imports free of side effects."
            + (
                " It ended with exit code 0: `client.shutdown()` also does that (`adopt: false` lets it through)."
                if r.facts.host_exit == 0
                else ""
            )
        ),
        retryable=False,
        why="user code in the scheduler does the same again",
    ),
    # -- memory
    Rule(
        name="script over its limit",
        match=by("script_memory"),
        cls=FailureClass.OUT_OF_MEMORY_SCRIPT,
        evidence=said,
        advice=lambda r: _script_memory_advice(r),
        retryable=False,
        why="the same data needs the same memory",
    ),
    Rule(
        name="worker out of memory",
        match=lambda r: r.raised("KilledWorker") and _worker_memory(r),
        cls=FailureClass.OUT_OF_MEMORY_WORKER,
        evidence=lambda r: _workers_said(r, r"exceeded \d+% (of )?(its )?memory|memory budget"),
        advice=lambda r: more_worker_memory(r.facts),
        retryable=False,
        why="the same partition needs the same memory on any worker; Dask has already tried several",
    ),
    Rule(
        name="MemoryError in a task",
        match=lambda r: r.raised(*_OOM_ERRORS) and r.traceback is not None and r.traceback.remote,
        cls=FailureClass.OUT_OF_MEMORY_WORKER,
        evidence=_quoted,
        advice=lambda r: more_worker_memory(r.facts),
        retryable=False,
        why="the same task asks for the same memory",
    ),
    Rule(
        name="MemoryError in the script",
        match=lambda r: r.raised(*_OOM_ERRORS) or (_signal(r) == 6 and r.anywhere(r"std::bad_alloc")),
        cls=FailureClass.OUT_OF_MEMORY_SCRIPT,
        evidence=_exit_said,
        advice=lambda r: _script_memory_advice(r),
        retryable=False,
        why="the same data needs the same memory",
    ),
    Rule(
        name="script killed for memory",
        match=_script_memory,
        cls=FailureClass.OUT_OF_MEMORY_SCRIPT,
        evidence=_exit_said,
        advice=lambda r: _script_memory_advice(r),
        retryable=False,
        why="the same data needs the same memory",
    ),
    # -- workers and connections
    *IN_THE_RUN,
    Rule(
        name="task crashes its workers",
        match=lambda r: r.raised("KilledWorker") and r.anywhere(_CRASHED),
        cls=FailureClass.WORKER_LOST,
        evidence=lambda r: _workers_said(r, _CRASHED),
        advice=lambda _: (
            "A task ended the worker's process itself, on several workers in turn: native code that crashed, or "
            "`os._exit` / `sys.exit` in a task. Run the task named above alone with `faulthandler` enabled to see "
            "where."
        ),
        retryable=False,
        why="the task did it on every worker that Dask tried",
    ),
    Rule(
        name="workers lost",
        match=lambda r: r.raised("KilledWorker", "NoWorkerError"),
        cls=FailureClass.WORKER_LOST,
        evidence=lambda r: _workers_said(r, r"killed by (unknown )?signal|Worker process|lost worker|Removing worker"),
        advice=lambda r: (
            "Workers went away while they ran a task, with no sign of a memory limit: machines taken back, killed from "
            "outside, or the network. A retry gets fresh workers. " + _largest_worker(r)
        ).strip(),
        retryable=True,
        why="machines go away; the job is not to blame",
    ),
    Rule(
        name="disk full",
        match=lambda r: r.says(_NO_SPACE),
        cls=FailureClass.OUTPUT_NOT_WRITABLE,
        evidence=_quoted,
        advice=lambda _: (
            "A disk is full or a quota is used up. Free space where the outputs go; Dask also spills to the workers' "
            "scratch folder when their memory is small."
        ),
        retryable=False,
        why="a full disk stays full",
    ),
    Rule(
        name="connection to the cluster lost",
        match=lambda r: r.says(_LOST) and by("script")(r),
        cls=FailureClass.SCHEDULER_DIED,
        evidence=_quoted,
        advice=lambda _: (
            "The script lost its connection to the scheduler or to the workers. If the script closed the client or the "
            "cluster itself, move that to its end; else the machine was too busy to answer, or the network broke."
        ),
        retryable=True,
        why="connections break with machines and load",
    ),
    # -- the script
    Rule(
        name="script crashed",
        match=lambda r: _signal(r) > 0 and _signal(r) not in _OUTSIDE,
        cls=FailureClass.USER_ERROR,
        evidence=_exit_said,
        advice=lambda r: (
            f"The script's process crashed with {signal_name(_signal(r))}: native code (an extension module) failed, "
            "not "
            'Python. Put `env: {PYTHONFAULTHANDLER: "1"}` into job.yaml to see the Python line; updating or pinning '
            "that package is the usual cure."
        ),
        retryable=False,
        why="crashes in native code mostly repeat on the same data",
    ),
    Rule(
        name="script killed from outside",
        match=lambda r: _signal(r) > 0,
        cls=FailureClass.SCRIPT_KILLED,
        evidence=_exit_said,
        advice=lambda r: (
            f"The script got {signal_name(_signal(r))} from something outside the job"
            + (
                ". Nothing shows that memory was short, but the memory limit of a container kills this way; the script "
                f"had used {format_size(r.facts.peaks.script_memory)}."
                if _signal(r) == 9
                else ": an administrator, a shutdown, or its own code (`os.kill`)."
            )
        ),
        retryable=True,
        why="nothing says that the job did it",
    ),
    Rule(
        name="never started",
        match=lambda r: by("script")(r) and r.facts.exit_code is None,
        cls=FailureClass.START_FAILED,
        evidence=said,
        advice=lambda _: "The script's process could not be started; the lines above say why.",
        retryable=True,
        why="the machine could not make a process",
    ),
    Rule(
        name="exception",
        match=lambda r: r.traceback is not None and r.facts.exit_code == 1,
        cls=FailureClass.USER_ERROR,
        evidence=_quoted,
        advice=lambda r: (
            MAIN_GUARD
            if r.anywhere("finished its bootstrapping phase")
            else user_advice(r.traceback) or "The script raised the exception above; fix it there."
        ),
        retryable=False,
        why="the same code on the same data raises again",
    ),
    Rule(
        name="exit code",
        match=lambda _: True,
        cls=FailureClass.USER_ERROR,
        evidence=_exit_said,
        advice=lambda r: (
            (
                f"The script ended itself with exit code {r.facts.exit_code} and no uncaught exception"
                if r.facts.exit_code is not None
                else f"The attempt ended by {r.facts.ended_by!r}"
            )
            + ": look for `sys.exit(...)` or `os._exit(...)` after the last lines above. Exit code 0 means success."
            + (
                f" {r.facts.exit_code} may be passed on: a program that it ran got {signal_name(_signal_below(r))}."
                if _signal_below(r)
                else ""
            )
        ),
        retryable=False,
        why="the script decided to end like this",
    ),
)


def _largest_worker(r: Reading) -> str:
    limit, peak = r.facts.worker_memory_limit, r.facts.peaks.worker_memory
    return (
        f"If it repeats: the largest worker used {format_size(peak)} of {format_size(limit)}." if limit and peak else ""
    )


def _script_memory_advice(r: Reading) -> str:
    limit, peak = r.facts.script_memory_limit, r.facts.peaks.script_memory
    used = f" (used {format_size(peak)}" + (f" of {format_size(limit)})" if limit else ")") if peak else ""
    return (
        f"The script's own process ran out of memory{used}. Keep large results on the workers: write them with "
        "`to_parquet` instead of `.compute()`, or reduce first. `script_memory` in job.yaml sets its limit."
    )
