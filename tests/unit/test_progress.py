"""The one line that people watch."""

from __future__ import annotations

from mayfly.contract import Phase, Status, Tasks, Timestamp
from mayfly.steps.progress import progress_line


def status(**more: object) -> Status:
    return Status(seq=1, at=Timestamp(0), elapsed=3.0, **more)  # type: ignore[arg-type]


def test_a_running_job() -> None:
    line = progress_line(
        status(phase=Phase.RUN, tasks=Tasks(done=3, running=2), biggest="read_csv 3/40", workers=2, workers_wanted=4)
    )
    assert (
        line == "run | tasks 3 done, 2 running, 0 waiting | read_csv 3/40 | 2/4 workers | cpu 0.0 workers, 0.0 script"
    )


def test_who_waits_for_containers_says_why_and_counts_once() -> None:
    note = "3 of 8 workers; queue batch at its maximum 50 %; pending 5 x 14 GB"
    line = progress_line(status(phase=Phase.START, workers=3, workers_wanted=8, note=note))
    assert line == f"start Dask | {note}"


def test_another_note_comes_last() -> None:
    line = progress_line(status(phase=Phase.START, workers=0, workers_wanted=2, note="the store is silent"))
    assert line == "start Dask | 0/2 workers | the store is silent"
