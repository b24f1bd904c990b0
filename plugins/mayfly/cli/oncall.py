"""The tools of whoever is on call: list, show, delete, reap. They need no Airflow, only staging store and backend."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence

from mayfly.backends.base import open_backend
from mayfly.cli.terminal import Terminal, age, table
from mayfly.contract import FrozenTarget, Receipt, to_json
from mayfly.errors import BackendUnavailable, DeadlinePassed, InputError, MayflyError, StoreUnavailable
from mayfly.generation import State
from mayfly.project.loading import Project
from mayfly.staging.credentials import lacks_emulator
from mayfly.states import ClusterState
from mayfly.steps.inventory import Leak, Listed, end_leak, find_run, leaks, list_runs
from mayfly.steps.lifecycle import Handle, Run
from mayfly.steps.progress import progress_line

OK, FAILED, STILL_THERE = 0, 1, 3
_POLL_SECONDS = 0.5


def listing(project: Project, target_name: str | None, *, closed: int, as_json: bool) -> int:
    """All runs and clusters that are not closed, and the newest `closed` that are."""
    now = time.time()
    rows: list[tuple[float, tuple[str, ...]]] = []
    hidden = silent = 0
    for target in _targets(project, target_name):
        try:
            found = [item for item in list_runs(target) if not _belongs_elsewhere(item, target, project)]
        except MayflyError as error:  # one place without an answer must not hide the others
            print(f"target {target.name}: {error}", file=sys.stderr)
            silent += 1
            continue
        for item in found:
            if as_json:
                print(json.dumps(_as_json(item, target)))
                continue
            if item.state is State.CLOSED and _absent(item):
                closed -= 1
                if closed < 0:
                    hidden += 1
                    continue
            rows.append((item.plan.created_at if item.plan else now, _row(item, target, now)))
    if as_json:
        return FAILED if silent else OK
    if rows:
        rows.sort(key=lambda row: -row[0])
        print(table([cells for _, cells in rows], head=("RUN", "JOB", "TARGET", "STATE", "CLUSTER", "AGE", "")))
    if hidden:
        print(f"({hidden} more closed runs: -n {hidden + len(rows)} shows them)")
    elif not rows and not silent:
        print("no runs yet")
    return FAILED if silent else OK


def _absent(item: Listed) -> bool:
    return item.cluster is None or item.cluster.state is ClusterState.ABSENT


def _row(item: Listed, target: FrozenTarget, now: float) -> tuple[str, ...]:
    cluster = "-" if item.cluster is None else str(item.cluster.state)
    if item.plan is None:
        return (item.name, "?", target.name, "unknown", cluster, "?", item.problem.splitlines()[0])
    if item.receipt is not None:
        note = _outcome(item, target) if _absent(item) else "LEAK: a receipt, and yet a cluster"
    else:
        note = progress_line(item.status) if item.status else "no job has started"
    since = age(now - item.plan.created_at)
    return (item.name, item.plan.job, target.name, str(item.state), cluster, since, note)


def _outcome(item: Listed, target: FrozenTarget) -> str:
    """Of each job's last attempt."""
    last = {record.job: record for record in Run.open(Handle(name=item.name, target=target)).records()}
    words = [str(record.failure.cls if record.failure else record.outcome) for record in last.values()]
    return ", ".join(dict.fromkeys(words)) or "no job ran"


def _as_json(item: Listed, target: FrozenTarget) -> dict[str, object]:
    return {
        "run": item.name,
        "target": target.name,
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
    """End all leaks. STILL_THERE when one is left: found by a dry run, or not proven to be gone."""
    terminal = Terminal()
    found = left = 0
    for target in _targets(project, target_name):
        try:
            for leak in leaks(target):
                if _belongs_elsewhere(leak, target, project):
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
    about = f"{leak.name} ({target.name})"
    terminal.line(f"{about}: {leak.reason}; {'would be ended' if dry_run else 'ending it'}")
    if dry_run:
        return False
    try:
        backend = open_backend(leak.run.plan.target if leak.run else target)
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


def _targets(project: Project, name: str | None) -> Iterator[FrozenTarget]:
    seen = set()
    for each in [name] if name else project.targets():
        target = project.frozen_target(each)
        if not name and lacks_emulator(target):  # nothing can be there
            continue
        if name or (target.backend, target.staging) not in seen:  # two targets may share one place; list it once
            seen.add((target.backend, target.staging))
            yield target


def _belongs_elsewhere(item: Listed | Leak, target: FrozenTarget, project: Project) -> bool:
    """Whether a target with another backend, which looks after this run, keeps its runs in the same place."""
    backend = item.run.plan.target.backend if item.run else target.backend
    if backend == target.backend:
        return False
    others = (project.frozen_target(name) for name in project.targets())
    return any((other.backend, other.staging) == (backend, target.staging) for other in others)


def _by(command: str) -> str:
    return f"mayfly {command} pid {os.getpid()}"
