"""What to tell a user: signals in words, and advice for well-known mistakes. Pure, stdlib only."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Protocol

from mayfly.contract import Peaks
from mayfly.failures.data_words import IN_THE_SCRIPT
from mayfly.failures.logtext import Traceback
from mayfly.units import format_size

SIGNALS: dict[int, str] = {int(number): number.name for number in signal.Signals if not number.name.startswith("SIGRT")}

_MEANING = {
    "SIGSEGV": "segmentation fault",
    "SIGABRT": "abort",
    "SIGBUS": "bus error",
    "SIGILL": "illegal instruction",
    "SIGFPE": "arithmetic error",
    "SIGKILL": "killed",
    "SIGTERM": "asked to end",
    "SIGINT": "interrupted",
    "SIGHUP": "terminal closed",
}


MAIN_GUARD = (
    "The script starts processes, and each of them imports the script and starts more. Put its main part under "
    '`if __name__ == "__main__":`, or use plain `Client()`, which starts none.'
)


class _Sizes(Protocol):
    @property
    def worker_memory_limit(self) -> int: ...
    @property
    def peaks(self) -> Peaks: ...


def signal_name(number: int) -> str:
    """`SIGSEGV (segmentation fault)`."""
    name = SIGNALS.get(number, f"signal {number}")
    return f"{name} ({_MEANING[name]})" if name in _MEANING else name


def more_worker_memory(facts: _Sizes) -> str:
    """Advice for workers that ran out of memory, with the numbers of this run."""
    limit, peak = facts.worker_memory_limit, facts.peaks.worker_memory
    used = f"Each worker had {format_size(limit)}" if limit else "The workers ran out of memory"
    if limit and peak > 0.7 * limit:  # else it grew too fast to be seen
        used += f" and the largest used {format_size(peak)}"
    suggestion = f" (try {2 * limit / 1e9:.3g} GB)" if limit else ""
    return (
        f'{used}. Make the pieces smaller (smaller `blocksize`, `repartition(partition_size="100MB")`), give each '
        f"worker more (`cluster.worker.memory` in job.yaml{suggestion}), or fewer threads (`cluster.worker.cores`)."
    )


def user_advice(traceback: Traceback | None) -> str:
    """Advice for the exception that ended the script, "" when none is known better than the traceback itself."""
    if traceback is None:
        return ""
    for types, pattern, advise in _KNOWN:
        match = re.search(pattern, traceback.text)
        if (not types or traceback.short_type in types) and match:
            return advise(match, traceback)
    return ""


def _place(traceback: Traceback) -> str:
    mine = [frame for frame in traceback.frames if not frame.library]
    return f"{mine[-1].path}, line {mine[-1].line}" if mine else "the place above"


def _module(match: re.Match[str], _: Traceback) -> str:
    name = match["name"]
    return (
        f"No module {name!r} in the job's environment. If {name.partition('.')[0]!r} is a file or package of yours, "
        "put it into the job's folder beside the script (imports start there); if it is an installable package, "
        "install it into the environment that the target's `python` names in config/targets.yaml."
    )


_Advise = Callable[[re.Match[str], Traceback], str]


def _same(text: str) -> _Advise:
    return lambda _, __: text


_KNOWN: tuple[tuple[frozenset[str], str, _Advise], ...] = (
    *((frozenset[str](), pattern, _same(text)) for pattern, text in IN_THE_SCRIPT),
    (frozenset({"ModuleNotFoundError"}), r"No module named '(?P<name>[^']*)'", _module),
    (
        frozenset({"ImportError"}),
        r"cannot import name '(?P<name>[^']*)' from '?(?P<where>[^' ]*)",
        lambda m, _: (
            f"{m['where']!r} has no {m['name']!r}: another version than the script was written for, or a file of the "
            "job's folder with the same name as that module hides it (`mayfly validate` finds those)."
        ),
    ),
    (
        frozenset({"SyntaxError", "IndentationError", "TabError"}),
        r"",
        lambda _, t: (
            f"Python cannot read {_place(t)}. Fix it there; `python -m py_compile` on the file tells the same."
        ),
    ),
    (
        frozenset({"ValueError", "TypeError"}),
        r"Unexpected keyword arguments?: (?P<names>.*)",
        lambda m, _: (
            f"`Client(...)` was given {m['names']}, which only make sense for a cluster of its own. In a job, plain "
            "`Client()` finds the run's cluster; sizes belong under `cluster` in job.yaml. (`adopt: true`, the "
            "default, accepts such arguments and says so.)"
        ),
    ),
    (
        frozenset({"ClosedClientError", "RuntimeError"}),
        r"Client is closed|IOLoop is closed",
        lambda _, t: (
            f"The client was already closed at {_place(t)}: by `client.close()`, `client.shutdown()` or the end of its "
            "`with` block. Move that to the end of the script."
        ),
    ),
    (
        frozenset({"WorkerStartTimeoutError", "TimeoutError"}),
        r"Only (?P<have>\d+)/(?P<want>\d+) workers arrived",
        lambda m, _: (
            f"The script waits for {m['want']} workers, and {m['have']} came. The plan may have fitted fewer to this "
            "target than job.yaml asks: wait for fewer, or for none (Dask begins with the first)."
        ),
    ),
    (
        frozenset({"NoValidWorkerError"}),
        r"",
        lambda _, __: (
            "A task asks for a worker (by address, host or resource) that the cluster does not have. Remove `workers=` "
            "/ `resources=` from the call."
        ),
    ),
    (
        frozenset(),
        r"Could not serialize object|cannot pickle|[Cc]an't pickle|[Cc]an't get attribute",
        lambda _, __: (
            "Something in a task cannot be sent to the workers: a lock, an open file or connection, a generator, or a "
            "class defined inside a function. Create it inside the task instead."
        ),
    ),
    (
        frozenset({"ValueError"}),
        r"Mismatched dtypes found in",
        lambda _, __: (
            "Dask guesses column types from the beginning of the first file, and a later one differs. Name the types: "
            '`dd.read_csv(..., dtype={"column": "float64"})`, or store the data as Parquet, which knows them.'
        ),
    ),
    (
        frozenset({"FileNotFoundError"}),
        r"(?P<path>'[^']+'|/\S+)",
        lambda m, _: (
            f"No such file: {m['path']}. Data beside the script: `Path(__file__).parent / ...`. Data elsewhere: name "
            "it under `inputs` in job.yaml and pass it as an argument; then it is checked on every worker before the "
            "script runs."
        ),
    ),
    (
        frozenset({"PermissionError"}),
        r"",
        lambda _, __: (
            "The job's user may not do this there. Name the location under `inputs` or `outputs` in job.yaml: then it "
            "is checked on every worker before the script runs."
        ),
    ),
    (
        frozenset({"KeyboardInterrupt"}),
        r"",
        lambda _, __: "The script was interrupted (SIGINT), not broken. Run it again.",
    ),
)
