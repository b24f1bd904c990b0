"""Reading a run directory for its report, and writing the page. What the report says is `mayfly.report.summary`'s."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mayfly.contract import Failure, Receipt, Record
from mayfly.errors import ContractError
from mayfly.report.summary import Verdict, render_text, verdict
from mayfly.staging.rundir import AttemptDir
from mayfly.steps.lifecycle import Run
from mayfly.steps.poke import Poll
from mayfly.steps.progress import progress_line

PAGE = "report.html"
_AT_THE_END = ("dask-report.html", "driver.log")


def text_report(run: Run) -> str:
    """The run in a few lines, as far as it has come; nothing is written."""
    records, receipt = run.records(), run.dir.receipt()
    still_open = receipt is None and run.dir.closing() is None
    judged = verdict(plan=run.plan, states={}, receipt=receipt, records=records, still_open=still_open)
    text = _text(run, judged, records=records, receipt=receipt)
    now = [
        f"  {attempt.job} (attempt {attempt.number}) now: {progress_line(status)}"
        for attempt in run.unended()
        if still_open and (status := attempt.status()) is not None
    ]
    return "\n".join([text.rstrip("\n"), *now])


def report(run: Run, states: Mapping[str, str], *, may_skip: Collection[str] = ()) -> Poll:
    """The last step: write report.html, replacing an earlier one, and judge; done with a `Verdict` and the run in a few
    lines. It does not raise on a bad one: the caller decides."""
    from mayfly.report.page import render_report  # Jinja is no business of a poke, nor of the command line's lists

    records, receipt = run.records(), run.dir.receipt()
    judged = verdict(plan=run.plan, states=states, receipt=receipt, records=records, may_skip=may_skip)
    page = render_report(
        plan=run.plan,
        records=records,
        receipt=receipt,
        verdict=judged.word,
        problems=judged.problems,
        metrics={f"{attempt.job}/{attempt.number}": samples(attempt) for attempt in run.attempts()},
        links=links(run, records),
        states=states,
        broken=broken_of(run),
    )
    run.store.put(f"{run.dir.root}/{PAGE}", page.encode())
    text = _text(run, judged, records=records, receipt=receipt)
    return Poll(done=True, lines=tuple(text.splitlines()), result=judged)


def _text(run: Run, judged: Verdict, *, records: Sequence[Record], receipt: Receipt | None) -> str:
    there = run.store.get(f"{run.dir.root}/{PAGE}") is not None
    return render_text(
        plan=run.plan,
        records=records,
        receipt=receipt,
        verdict=judged.word,
        problems=judged.problems,
        report=page_address(run) if there else "",
        broken=broken_of(run),
    )


def broken_of(run: Run) -> Failure | None:
    """Why the cluster never came up, where that was found out."""
    try:
        found = run.dir.broken()
    except ContractError:
        return None
    return found.failure if found else None


def page_address(run: Run) -> str:
    """The page's path on a file store, its URL elsewhere."""
    return f"{run.dir.url}/{PAGE}".removeprefix("file://")


def samples(attempt: AttemptDir) -> list[dict[str, Any]]:
    """The time series of an attempt. A line cut short by a driver's death is left out."""
    found: list[dict[str, Any]] = []
    number = 0
    while (segment := attempt.metrics_segment(number)) is not None:
        for line in segment.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        number += 1
    return found


def links(run: Run, records: Collection[Record]) -> dict[str, str]:
    """Files beside the page that are worth a click, by relative address."""
    found = {}
    names = run.store.list(f"{run.dir.root}/jobs/")
    for record in records:
        key = f"{record.job}/{record.attempt}"
        below = f"{run.dir.root}/jobs/{key}/"
        for path in names:
            name = path.removeprefix(below)
            if path.startswith(below) and (name in _AT_THE_END or name.startswith("logs/")):
                found[f"{key}/{name}"] = f"jobs/{key}/{name}"
    return found
