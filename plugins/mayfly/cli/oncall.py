"""The tools of whoever is on call: list, show, delete, reap. They need no Airflow, only staging store and backend."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence

from mayfly.backends.base import open_backend
from mayfly.cli.terminal import Terminal, age, table
from mayfly.contract import FrozenTarget, Receipt, to_json
from mayfly.errors import BackendUnavailable, DeadlinePassed, InputError, MayflyError, StoreUnavailable
from mayfly.generation import State
from mayfly.project.loading import Project
from mayfly.staging.credentials import lacks_emulator
from mayfly.states import ClusterState
from mayfly.steps.inventory import Leak, Listed, Unjudged, end_leak, find_run, leaks, list_runs, place_of
from mayfly.steps.lifecycle import Run
from mayfly.steps.progress import progress_line

OK, FAILED, STILL_THERE = 0, 1, 3
_POLL_SECONDS = 0.5


def listing(project: Project, target_name: str | None, *, closed: int, as_json: bool) -> int:
    """All runs and clusters that are not closed, and the newest `closed` that are."""
    now, beside = time.time(), _reachable(project)
    found: list[tuple[Listed, FrozenTarget]] = []
    rows: list[tuple[str, ...]] = []
    hidden = silent = 0
    for target in _targets(project, target_name):
        try:
            found += [(item, target) for item in list_runs(target, beside=beside)]
        except MayflyError as error:  # one place without an answer must not hide the others
            print(f"target {target.name}: {error}", file=sys.stderr)
            silent += 1
    found.sort(key=lambda pair: -pair[0].begun)  # before anything is left out: the newest may be the last target's
    if as_json:
        for item, target in found:
            print(json.dumps(_as_json(item, target)))
        return FAILED if silent else OK
    for item, target in found:
        if item.state is State.CLOSED and _absent(item):
            closed -= 1
            if closed < 0:
                hidden += 1
                continue
        rows.append(_row(item, target, now))
    if rows:
        print(table(rows, head=("RUN", "JOB", "TARGET", "STATE", "CLUSTER", "AGE", "")))
    if hidden:
        print(f"({hidden} more closed runs: -n {hidden + len(rows)} shows them)")
    elif not rows and not silent:
        print("no runs yet")
    return FAILED if silent else OK


def _absent(item: Listed) -> bool:
    return item.cluster is None or item.cluster.state is ClusterState.ABSENT


def _row(item: Listed, target: FrozenTarget, now: float) -> tuple[str, ...]:
    cluster = "-" if item.cluster is None or _absent(item) else str(item.cluster.state)
    if item.plan is None or item.run is None:
        return (item.name, "?", target.name, "unknown", cluster, "?", item.problem.splitlines()[0])
    if item.receipt is not None:
        note = _outcome(item.run) if _absent(item) else "LEAK: a receipt, and yet a cluster"
    else:
        note = progress_line(item.status) if item.status else "no job has started"
    since = age(now - item.plan.created_at)
    return (item.name, item.plan.job, item.plan.target.name, str(item.state), cluster, since, note)


def _outcome(run: Run) -> str:
    """Of each job's last attempt."""
    last = {record.job: record for record in run.records()}
    words = [str(record.failure.cls if record.failure else record.outcome) for record in last.values()]
    return ", ".join(dict.fromkeys(words)) or "no job ran"


def _as_json(item: Listed, target: FrozenTarget) -> dict[str, object]:
    return {
        "run": item.name,
        "target": item.plan.target.name if item.plan else target.name,
        "job": item.plan.job if item.plan else None,
        "state": item.state and item.state.value,
        "cluster": item.cluster and item.cluster.state.value,
        "plan": to_json(item.plan),
        "status": to_json(item.status),
        "receipt": to_json(item.receipt),
        "problem": item.problem,
    }


def show_run(project: Project, target_name: str | None, given: str) -> int:
    """The report of a run as text, also of one that is under way."""
    from mayfly.steps.reporting import text_report

    print(text_report(find(project, target_name, given)))
    return OK


def delete_runs(project: Project, target_name: str | None, given: Sequence[str], *, reason: str) -> int:
    """End runs, one after another. STILL_THERE when the deletion of one could not be proven."""
    terminal = Terminal()
    code = OK
    for run in [find(project, target_name, name) for name in given]:
        try:
            receipt = _until_deleted(run, terminal, reason=reason or "mayfly delete")
            terminal.line(f"{run.plan.name}: {receipt.rule} ({receipt.by})")
        except MayflyError as error:
            terminal.progress("")
            terminal.warn(f"{run.plan.name}: {error}")
            code = STILL_THERE
    return code


def _until_deleted(run: Run, terminal: Terminal, *, reason: str) -> Receipt:
    while True:
        poll = run.delete(_by("delete"), reason)
        if poll.done:
            terminal.progress("")
            receipt: Receipt = poll.result
            return receipt
        terminal.progress(f"{run.plan.name}: {poll.progress}")
        time.sleep(_POLL_SECONDS)


def reap_targets(project: Project, target_name: str | None, *, dry_run: bool) -> int:
    """End all leaks. STILL_THERE when one is left, found by a dry run or not proven to be gone, or may be: a run that
    cannot be judged, a target that gives no answer."""
    terminal, beside = Terminal(), _reachable(project)
    found = left = 0
    for target in _targets(project, target_name):
        try:
            for leak in leaks(target, beside=beside):
                if isinstance(leak, Unjudged):
                    left += 1
                    terminal.warn(
                        f"{leak.name} ({target.name}): whether it leaks cannot be said: {leak.problem}\n"
                        f"If nobody wants it any more: mayfly delete {leak.name}"
                    )
                    continue
                found += 1
                left += not _reaped(leak, target, terminal, dry_run=dry_run)
        except MayflyError as error:
            left += 1
            terminal.warn(f"target {target.name}: {error}")
    if not found and not left:
        terminal.line("nothing to reap")
    return STILL_THERE if left else OK


def _reaped(leak: Leak, target: FrozenTarget, terminal: Terminal, *, dry_run: bool) -> bool:
    target = leak.run.plan.target if leak.run else target
    about = f"{leak.name} ({target.name})"
    terminal.line(f"{about}: {leak.reason}; {'would be ended' if dry_run else 'ending it'}")
    if dry_run:
        return False
    try:
        backend = open_backend(target)
        deadline = time.monotonic() + (leak.run.plan.limits.delete if leak.run else _POLL_SECONDS)
        while not end_leak(leak, backend, by=_by("reap")) and leak.run is not None:
            if time.monotonic() > deadline:
                raise DeadlinePassed("its deletion takes too long; run `mayfly reap` again")
            time.sleep(_POLL_SECONDS)
    except MayflyError as error:
        terminal.warn(f"{about}: {error}")
        return False
    terminal.line(f"{about}: ended")
    return True


def find(project: Project, target_name: str | None, given: str) -> Run:
    """The run of that name, or of the only name that begins so, on any target."""
    found: list[Run] = []
    problems: list[InputError] = []
    silent: list[MayflyError] = []
    for target in _targets(project, target_name):
        try:
            found.append(find_run(target, given))
        except InputError as error:
            problems.append(error)
        except (StoreUnavailable, BackendUnavailable) as error:
            silent.append(error)
    # Targets may share a staging folder; one run in it is one run, whichever target leads there.
    found = list({(run.store.url, run.plan.name): run for run in found}.values())
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{run.plan.name} ({run.plan.target.name})" for run in found)
        raise InputError(f"{given!r} is the beginning of runs on several targets: {names}; say which by --target")
    raise silent[0] if silent else problems[0]


def _targets(project: Project, name: str | None) -> list[FrozenTarget]:
    """The named target; else one for each place and each storage of runs."""
    if name:
        return [project.frozen_target(name)]
    found: dict[tuple[object, ...], FrozenTarget] = {}
    for target in _reachable(project):
        found.setdefault((target.staging, *place_of(target)), target)
    return list(found.values())


def _reachable(project: Project) -> list[FrozenTarget]:
    """All targets but those that are for an emulator which does not run: nothing can be there."""
    targets = (spec.freeze(project.home) for spec in project.targets().values())
    return [target for target in targets if not lacks_emulator(target)]


def _by(command: str) -> str:
    return f"mayfly {command} pid {os.getpid()}"
