"""The report of a run: plan beside record beside receipt, for people; and the verdict on it. Pure.

`render_report` makes one self-contained HTML file: no script, nothing loaded from elsewhere. Whatever is missing is
named, with what that means; the report of a half-broken run is the one that matters most.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mayfly.contract import Failure, Outcome, Peaks, Phase, Plan, Receipt, Record, Tasks, YarnAccount, iso
from mayfly.units import format_duration, format_size

STEPS = ("plan", "create_cluster", "collect_metrics", "delete_cluster", "report")
"""The group's own tasks; every other state given to `verdict` is a job's."""
_MUST_SUCCEED = ("plan", "create_cluster", "delete_cluster")


class Verdict(NamedTuple):
    """`problems` say what is wrong and what to do, the weightiest first; empty when `ok`."""

    ok: bool
    problems: tuple[str, ...]
    word: str = ""
    """success, failed, cancelled, running or "not proven": the report's headline."""


def verdict(
    *,
    plan: Plan | None,
    states: Mapping[str, str],
    receipt: Receipt | None,
    records: Sequence[Record],
    may_skip: Collection[str] = (),
    still_open: bool = False,
) -> Verdict:
    """Whether everything went well *and* deletion is proven.

    `states` by task name within the group (`run_job`, mapped ones `run_job_0`). They are hints: absent ones have no
    say, and then the job's last record counts. The receipt is the fact; only for a look at a run that is under way
    (`still_open`: nobody has begun to delete) its absence is no problem.
    """
    under_way = still_open and receipt is None
    proof = "" if under_way else _unproven(plan, receipt)
    problems = [proof] if proof else []
    problems += [
        f"{step} is {states[step]}; its log says why"
        for step in _MUST_SUCCEED
        if states.get(step, "success") != "success"
    ]
    last = last_attempts(records)
    failures = [record for record in last.values() if record.outcome is not Outcome.SUCCESS]
    jobs = {name: state for name, state in states.items() if name not in STEPS}
    for name, state in jobs.items():
        if state == "success" or (state == "skipped" and _base(name) in {_base(skip) for skip in may_skip}):
            continue
        record = next((last[job] for job in last if name in task_names(job)), None)
        why = f": {record.failure.cls}" if record is not None and record.failure is not None else ""
        unexpected = ", and nothing says that it may be" if state == "skipped" else ""
        problems.append(f"job {name} is {state}{why}{unexpected}")
    known = {_base(name) for name in jobs}
    for record in failures:
        if _base(record.job) not in known:
            why = f": {record.failure.cls}" if record.failure else ""
            problems.append(f"job {record.job} is {record.outcome}{why}")
    if not jobs and not records and not under_way:
        problems.append("no job ran")
    word = "success"
    if problems:
        cancelled = bool(failures) and all(record.outcome is Outcome.CANCELLED for record in failures)
        word = "not proven" if proof else "cancelled" if cancelled else "failed"
    return Verdict(not problems, tuple(problems), "running" if under_way and not problems else word)


def last_attempts(records: Sequence[Record]) -> dict[str, Record]:
    """The record with the highest attempt number of each job, in the order of their first start."""
    last: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: (record.started_at, record.attempt)):
        if record.job not in last or last[record.job].attempt < record.attempt:
            last[record.job] = record
    return last


def _unproven(plan: Plan | None, receipt: Receipt | None) -> str:
    name = plan.name if plan else "this run"
    if receipt is None:
        return (
            f"deletion is not proven: there is no receipt for {name}. Something may still be running (and costing); "
            f"`mayfly delete {name}` ends it and writes the receipt"
        )
    if plan is not None and (receipt.name, receipt.owner) != (plan.name, plan.owner):
        return f"deletion is not proven: the receipt is for {receipt.name}, not for this plan's {plan.name}"
    return ""


def _base(name: str) -> str:
    """A job's name without its map index: `run_job` for `run_job_3` and `run_job-3`."""
    return re.sub(r"[_-]\d+$", "", name)


def task_names(job: str) -> tuple[str, str]:
    """How a record's job is called in states: `run_job-3`, and Airflow's `run_job_3`."""
    return job, re.sub(r"-(\d+)$", r"_\1", job)


# ---------------------------------------------------------------- sums over attempts


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Over all attempts of a run: peaks are the highest, seconds and counts are sums."""

    peaks: Peaks
    tasks: Tasks
    phases: Mapping[str, float]
    workers_lost: int
    seconds: float


def totals(records: Sequence[Record]) -> Totals:
    def highest(name: str) -> int:
        return max((int(getattr(record.peaks, name)) for record in records), default=0)

    def counted(name: str) -> int:
        return sum(int(getattr(record.tasks, name)) for record in records)

    phases: dict[str, float] = {}
    for record in records:
        for name, seconds in record.phases.items():
            phases[name] = phases.get(name, 0.0) + seconds
    return Totals(
        peaks=Peaks(
            workers=highest("workers"),
            memory=max(highest("memory"), highest("worker_memory")),  # the two were not measured at the same moment
            worker_memory=highest("worker_memory"),
            script_memory=highest("script_memory"),
            host_memory=highest("host_memory"),
            spilled=highest("spilled"),
            cpu_workers=max((record.peaks.cpu_workers for record in records), default=0.0),
        ),
        tasks=Tasks(
            done=counted("done"),
            running=counted("running"),
            waiting=counted("waiting"),
            failed=counted("failed"),
            recomputed=counted("recomputed"),
        ),
        phases=in_order(phases),
        workers_lost=sum(record.workers_lost for record in records),
        seconds=sum(max(0.0, record.ended_at - record.started_at) for record in records),
    )


def in_order(phases: Mapping[str, float]) -> dict[str, float]:
    """Phases in the order in which they happen; unknown ones last."""
    known = [str(phase) for phase in Phase]
    return dict(sorted(phases.items(), key=lambda item: known.index(item[0]) if item[0] in known else len(known)))


def yarn_account(account: YarnAccount) -> tuple[tuple[str, str], ...]:
    """YARN's own account of one attempt, as names and values; its containers only, not the driver's machine."""
    ended = [(account.containers_failed, "failed"), (account.containers_preempted, "preempted")]
    gb_hours = account.memory_mib_seconds * 2**20 / 1e9 / 3600
    rows = [
        ("YARN application", ", ".join(account.applications)),
        ("YARN queue", account.queue and f"{account.queue}, waited {format_duration(account.queue_wait)} in it"),
        ("containers", _and_more(f"{account.containers_started} started", ended)),
        ("YARN charged", f"{gb_hours:.3g} GB-hours, {account.vcore_seconds / 3600:.3g} core-hours"),
    ]
    for name, node in sorted(account.nodes.items()):
        what = _and_more(_count(node.containers, "container"), [(node.failed, "failed"), (node.preempted, "preempted")])
        rows.append((f"node {name}", f"{what}, {format_duration(node.container_seconds)} in all"))
    return tuple((name, value) for name, value in rows if value)


def _and_more(first: str, counts: Sequence[tuple[int, str]]) -> str:
    return ", ".join([first, *(f"{number} {what}" for number, what in counts if number)])


def span(plan: Plan, records: Sequence[Record], receipt: Receipt | None) -> float:
    """Seconds from the plan to the proof of deletion, or to the last thing known."""
    ends = [record.ended_at for record in records] + ([receipt.deleted_at] if receipt else [])
    return max(0.0, max(ends, default=plan.created_at) - plan.created_at)


def deletion(receipt: Receipt | None) -> str:
    """The proof in one line."""
    if receipt is None:
        return "NOT PROVEN: no receipt; something may still be running"
    lived = f"; lived {format_duration(receipt.billed_seconds)}" if receipt.billed_seconds > 0 else ""
    cost = f", {receipt.cost:.2f} USD" if receipt.cost is not None else ""
    return f"proven at {iso(receipt.deleted_at)}: {receipt.rule}{lived}{cost}"


# ---------------------------------------------------------------- for terminals


def render_text(
    *,
    plan: Plan,
    records: Sequence[Record],
    receipt: Receipt | None,
    verdict: str,
    problems: Sequence[str] = (),
    report: str = "",
    broken: Failure | None = None,
) -> str:
    """The run in a few lines: outcome, seconds per phase, peaks, proof of deletion, path of the report page."""
    total = totals(records)
    running = verdict == "running"
    took = "" if running else f" in {format_duration(span(plan, records, receipt))}"
    lines = [f"{plan.job}: {verdict}{took} on target {plan.target.name} ({plan.workers})"]
    lines += [f"  problem    {_printable(problem)}" for problem in problems]
    why = [("the cluster never came up", broken)] if broken else []
    why += [(f"{r.job}, attempt {r.attempt}", r.failure) for r in last_attempts(records).values() if r.failure]
    for what, failure in why:
        lines.append(f"  {what}: {failure.cls}")
        lines += [f"    | {_indent(line)}{_printable(line)}" for line in failure.evidence]
        lines += [f"    {_printable(failure.advice)}"] if failure.advice else []
    notes = list(dict.fromkeys([*plan.notes, *(note for record in records for note in record.notes)]))
    lines += [f"  note       {_printable(note)}" for note in notes]
    if records:
        phases = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in total.phases.items())
        limit = plan.workers.maximum * plan.workers.memory
        memory = f"{format_size(total.peaks.memory)} of {format_size(limit)} in {_count(total.peaks.workers, 'worker')}"
        failed = f", {total.tasks.failed} failed" if total.tasks.failed else ""
        again = f", {total.tasks.recomputed} recomputed" if total.tasks.recomputed else ""
        lost = f"; {_count(total.workers_lost, 'worker')} lost" if total.workers_lost else ""
        lines += [
            f"  phases     {phases or 'not recorded'}",
            f"  peak       {memory}, script {format_size(total.peaks.script_memory)}",
            f"  tasks      {total.tasks.done} done{failed}{again}{lost}",
        ]
        for record in last_attempts(records).values():
            if record.yarn is not None:
                said = "; ".join(f"{name.removeprefix('YARN ')} {value}" for name, value in yarn_account(record.yarn))
                lines.append(f"  YARN       {_printable(said)}")
    elif not running:
        lines.append("  record     none: no attempt of a job ended, so there is nothing to say about the script")
    lines.append(f"  deletion   {'not yet: the run is under way' if running else deletion(receipt)}")
    if report:
        lines.append(f"  report     {report}")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _indent(text: str) -> str:
    return " " * (len(text) - len(text.lstrip(" ")))


def _printable(text: str) -> str:
    """One line that cannot move the cursor of the terminal it is printed to."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


# ---------------------------------------------------------------- for browsers


def failures(records: Sequence[Record]) -> list[tuple[Record, Failure]]:
    """What stands first on the page: the failure of each job whose last attempt failed."""
    last = last_attempts(records).values()
    return [(record, record.failure) for record in last if record.failure is not None]
