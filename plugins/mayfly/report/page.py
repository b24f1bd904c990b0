"""The report's HTML page: what the template shows, prepared as plain values. Pure; Jinja escapes every text."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from mayfly.contract import Environment as Packed
from mayfly.contract import Failure, Phase, Plan, Receipt, Record, YarnPlan
from mayfly.plan import machine_words
from mayfly.report import charts
from mayfly.report.charts import Series
from mayfly.report.summary import deletion, failures, in_order, span, task_names, totals, yarn_account
from mayfly.units import format_duration, format_size

_PHASES = {str(phase): f"p{number}" for number, phase in enumerate(Phase)}
_NAMES = {"dask-report.html": "Dask's performance report", "driver.log": "whole log"}
_NO_RECORD = (
    "This attempt began, and nothing says how it ended: its driver wrote no record. The plots show what it had told "
    "until then."
)
_TONE = {"success": "good", "cancelled": "warn"}
Row = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Link:
    """`address` is "" where the given one is none that a browser should follow; then `shown` says it as text."""

    name: str
    address: str
    shown: str = ""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt of a job as the page shows it; without a record it is what metrics alone tell."""

    title: str
    outcome: str
    tone: str
    when: str
    failure: Failure | None
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    phases: tuple[tuple[str, str, str], ...]
    bar: Markup
    charts: tuple[Markup, ...]
    no_charts: str
    links: tuple[Link, ...]
    versions: str


def render_report(
    *,
    plan: Plan,
    records: Sequence[Record],
    receipt: Receipt | None,
    verdict: str,
    problems: Sequence[str] = (),
    metrics: Mapping[str, Sequence[object]] | None = None,
    links: Mapping[str, str] | None = None,
    states: Mapping[str, str] | None = None,
    broken: Failure | None = None,
) -> str:
    """The page, as one HTML document.

    `verdict` is the headline (`Verdict.word`). `metrics` holds samples by `"<job>/<attempt>"`. `links` maps a text to
    an address; those whose text begins with `"<job>/<attempt>/"` are shown at that attempt, and only http, https,
    file and relative addresses become links. `states` are task states by name, `broken` says why the cluster never
    came up.
    """
    metrics, links, states = metrics or {}, links or {}, states or {}
    records = sorted(records, key=lambda record: (record.started_at, record.job, record.attempt))
    keys = [f"{record.job}/{record.attempt}" for record in records]
    attempts = [_attempt(plan, record, metrics.get(key, ()), links) for key, record in zip(keys, records, strict=True)]
    attempts += [_without_record(plan, key, metrics[key], links) for key in sorted(metrics) if key not in keys]
    shown_at_attempts = tuple(f"{key}/" for key in {*keys, *metrics})
    return _template().render(
        plan=plan,
        verdict=verdict,
        tone=_TONE.get(verdict, "bad"),
        headline=_headline(plan, verdict, format_duration(span(plan, records, receipt))),
        problems=_unexplained(problems, records),
        failures=failures(records),
        broken=broken,
        facts=_facts(plan, records, receipt),
        planned=_planned(plan),
        recorded=_recorded(records) if records else (),
        proven=_proven(receipt) if receipt else (),
        deletion=deletion(receipt),
        receipt=receipt,
        notes=tuple(dict.fromkeys([*plan.notes, *(note for record in records for note in record.notes)])),
        attempts=attempts,
        links=[_link(name, to) for name, to in links.items() if not name.startswith(shown_at_attempts)],
        states=list(states.items()),
        when=_when,
    )


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    return environment.get_template("report.html.j2")


def _code(text: str) -> Markup:
    """`like this` in our messages as code. Everything is escaped."""
    parts = (
        escape(part) if number % 2 == 0 else Markup("<code>{}</code>").format(part)
        for number, part in enumerate(text.split("`"))
    )
    return Markup("").join(parts)


def _unexplained(problems: Sequence[str], records: Sequence[Record]) -> tuple[str, ...]:
    """Without those that only repeat the failure which stands above them."""
    explained = tuple(f"job {name} is " for record, _ in failures(records) for name in task_names(record.job))
    return tuple(problem for problem in problems if not problem.startswith(explained))


def _headline(plan: Plan, verdict: str, took: str) -> str:
    said = {
        "success": f"{plan.job} succeeded in {took}",
        "failed": f"{plan.job} failed after {took}",
        "cancelled": f"{plan.job} was cancelled after {took}",
        "not proven": f"{plan.job}: deletion is not proven",
    }
    return said.get(verdict, f"{plan.job}: {verdict}")


# ---------------------------------------------------------------- the top of the page


def _facts(plan: Plan, records: Sequence[Record], receipt: Receipt | None) -> tuple[tuple[str, str, str], ...]:
    """(name, value, small print): the numbers that most readers came for."""
    total = totals(records)
    limit = plan.workers.maximum * plan.workers.memory
    share = f"{total.peaks.memory / limit:.0%} of {format_size(limit)}" if limit else ""
    found = [("time", format_duration(span(plan, records, receipt)), "from plan to proof of deletion")]
    if records:
        found += [
            ("script", format_duration(total.phases.get(Phase.RUN, 0.0)), "phase run, all attempts"),
            ("workers", str(total.peaks.workers), f"of {plan.workers.maximum} planned"),
            ("peak memory", format_size(total.peaks.memory), share),
            ("tasks", f"{total.tasks.done:,}", f"{total.tasks.failed} failed, {total.tasks.recomputed} recomputed"),
        ]
    if receipt is None:
        found.append(("deletion", "not proven", "something may still be running, and costing"))
    else:
        cost = "" if receipt.cost is None else f", {receipt.cost:.2f} USD"
        found.append(("deletion", "proven", f"the cluster lived {format_duration(receipt.billed_seconds)}{cost}"))
    return tuple(found)


def _planned(plan: Plan) -> tuple[Row, ...]:
    limits = plan.limits
    rows = [
        ("target", f"{plan.target.name} ({plan.target.backend}, {plan.target.launcher})"),
        ("profile", plan.profile),
        ("workers", str(plan.workers)),
        ("asked", str(plan.asked) if plan.asked != plan.workers else ""),
        *(("machines", words) for words in machine_words(plan.nodes)),
        ("queue", _queue(plan.yarn) if plan.yarn else ""),
        ("environment", _environment(plan.environment) if plan.environment else ""),
        ("script memory", format_size(plan.script_memory) if plan.script_memory else ""),
        ("time limit", f"{format_duration(limits.job)} for the job, {format_duration(limits.start)} to start"),
        ("stall limit", format_duration(limits.stall) if limits.stall else "off"),
        ("expires", f"{_when(plan.expires_at)}, whatever happens"),
        ("cost", "not known" if plan.cost_estimate is None else f"at most {plan.cost_estimate:.2f} USD"),
        *((f"input {name}", place) for name, place in plan.inputs.items()),
        *((f"output {name}", place) for name, place in plan.outputs.items()),
        ("made", _when(plan.created_at)),
    ]
    return tuple((name, value) for name, value in rows if value)


def _queue(yarn: YarnPlan) -> str:
    words = [
        yarn.queue or "the user's default",
        f"node label {yarn.node_label}" if yarn.node_label else "",
        f"priority {yarn.priority}" if yarn.priority is not None else "",
    ]
    return ", ".join(word for word in words if word)


def _environment(environment: Packed) -> str:
    return f"Python {environment.python}, {format_size(environment.bytes)} ({environment.path})"


def _recorded(records: Sequence[Record]) -> tuple[Row, ...]:
    total = totals(records)
    jobs = {record.job for record in records}
    peaks, tasks = total.peaks, total.tasks
    rows = [
        ("attempts", f"{len(records)}" + (f", of {len(jobs)} jobs" if len(jobs) > 1 else "")),
        ("outcomes", ", ".join(str(record.outcome) for record in records)),
        ("workers", f"up to {peaks.workers}" + (f", {total.workers_lost} lost" if total.workers_lost else "")),
        ("worker memory", f"{format_size(peaks.memory)} in all, the largest {format_size(peaks.worker_memory)}"),
        ("script memory", format_size(peaks.script_memory)),
        ("scheduler", format_size(peaks.host_memory) if peaks.host_memory else ""),
        ("spilled", format_size(peaks.spilled) if peaks.spilled else ""),
        ("worker CPU", f"up to {peaks.cpu_workers:.1f} cores"),
        ("tasks", f"{tasks.done:,} done, {tasks.failed} failed, {tasks.recomputed} recomputed"),
        ("time", format_duration(total.seconds)),
        ("from", _when(records[0].started_at)),
        ("to", _when(max(record.ended_at for record in records))),
    ]
    return tuple((name, value) for name, value in rows if value)


def _proven(receipt: Receipt) -> tuple[Row, ...]:
    rows = [
        ("deleted", _when(receipt.deleted_at)),
        ("proof", receipt.rule),
        *(("checked", check) for check in receipt.checks),
        ("created", _when(receipt.created_at) if receipt.created_at else "not known to have been"),
        ("lived", format_duration(receipt.billed_seconds)),
        ("cost", "not known" if receipt.cost is None else f"{receipt.cost:.2f} USD"),
        ("written by", receipt.by),
    ]
    return tuple((name, value) for name, value in rows if value)


# ---------------------------------------------------------------- attempts


def _attempt(plan: Plan, record: Record, samples: Sequence[object], links: Mapping[str, str]) -> Attempt:
    key = f"{record.job}/{record.attempt}"
    peaks, tasks = record.peaks, record.tasks
    phases = in_order({name: max(0.0, seconds) for name, seconds in record.phases.items()})
    shares = [(name, seconds, _PHASES.get(name, "p9")) for name, seconds in phases.items()]
    code = "" if record.exit_code is None else str(record.exit_code)
    rows = [
        ("exit code", code),
        ("tasks", f"{tasks.done:,} done" + (f", {tasks.failed} failed" if tasks.failed else "")),
        ("recomputed", str(tasks.recomputed) if tasks.recomputed else ""),
        ("largest worker", f"{format_size(peaks.worker_memory)} of {format_size(plan.workers.memory)}"),
        ("workers lost", str(record.workers_lost) if record.workers_lost else ""),
        ("recorded by", record.by if record.by != "driver" else ""),
        *(yarn_account(record.yarn) if record.yarn else ()),
    ]
    drawn = _charts(plan, samples)
    return Attempt(
        title=f"{record.job}, attempt {record.attempt}",
        outcome=str(record.outcome),
        tone=_TONE.get(str(record.outcome), "bad"),
        when=f"{_when(record.started_at)}, {format_duration(max(0.0, record.ended_at - record.started_at))}",
        failure=record.failure,
        rows=tuple((name, value) for name, value in rows if value),
        notes=(),
        phases=tuple((name, format_duration(seconds), css) for name, seconds, css in shares),
        bar=Markup(charts.bar(shares)),
        charts=drawn,
        no_charts="" if drawn else _why_no_charts(samples),
        links=_links_of(key, links),
        versions=", ".join(f"{name} {version}" for name, version in record.versions.items()),
    )


def _without_record(plan: Plan, key: str, samples: Sequence[object], links: Mapping[str, str]) -> Attempt:
    job, _, number = key.rpartition("/")
    drawn = _charts(plan, samples)
    return Attempt(
        title=f"{job}, attempt {number}",
        outcome="no record",
        tone="bad",
        when="",
        failure=None,
        rows=(),
        notes=(_NO_RECORD,),
        phases=(),
        bar=Markup(),
        charts=drawn,
        no_charts="" if drawn else _why_no_charts(samples),
        links=_links_of(key, links),
        versions="",
    )


def _why_no_charts(samples: Sequence[object]) -> str:
    if samples:
        return "Too short to plot: fewer than two measurements were taken."
    return "No measurements were found, so there is nothing to plot; the numbers above come from the record."


def _charts(plan: Plan, samples: Sequence[object]) -> tuple[Markup, ...]:
    cores = plan.workers.cores
    rows = [
        {**sample, "cores": cores * workers, "planned": plan.workers.maximum}
        for sample in samples
        if isinstance(sample, Mapping) and isinstance(workers := sample.get("workers", 0), int)
    ]
    found = [
        charts.chart(
            title="Memory",
            samples=rows,
            series=(
                Series(name="workers", key="memory", css="c1", kind="area"),
                Series(name="limit", key="memory_limit", css="c0", kind="limit"),
                Series(name="spilled to disk", key="spilled", css="c4"),
                Series(name="script", key="script_memory", css="c2"),
                Series(name="scheduler", key="host_memory", css="c3"),
            ),
            text=format_size,
        ),
        charts.chart(
            title="CPU, cores busy",
            samples=rows,
            series=(
                Series(name="workers", key="cpu_workers", css="c1", kind="area"),
                Series(name="script", key="cpu_script", css="c2"),
                Series(name="cores", key="cores", css="c5", kind="limit"),
            ),
            text=lambda value: f"{value:.1f}".removesuffix(".0"),
        ),
        charts.chart(
            title="Tasks",
            samples=rows,
            series=(
                Series(name="done", key="done", css="c3", kind="area"),
                Series(name="running", key="running", css="c1"),
                Series(name="waiting", key="waiting", css="c2"),
                Series(name="failed", key="failed", css="c0"),
            ),
            text=lambda value: f"{value:,.0f}",
            whole=True,
        ),
        charts.chart(
            title="Workers",
            samples=rows,
            series=(
                Series(name="there", key="workers", css="c1", kind="step"),
                Series(name="planned", key="planned", css="c5", kind="limit"),
            ),
            text=lambda value: f"{value:.0f}",
            whole=True,
        ),
    ]
    return tuple(Markup(figure) for figure in found if figure)


# ---------------------------------------------------------------- small things


def _links_of(key: str, links: Mapping[str, str]) -> tuple[Link, ...]:
    start = f"{key}/"
    return tuple(_link(name.removeprefix(start), to) for name, to in links.items() if name.startswith(start))


def _link(name: str, to: str) -> Link:
    """A browser follows only what cannot run anything; the rest is shown as text (`gs://…` can be copied)."""
    name = _NAMES.get(name, name)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", to)
    # Browsers ignore control characters inside an address: "java\nscript:" would be one of theirs.
    if not to.isprintable() or " " in to or (scheme and scheme[1].lower() not in ("http", "https", "file")):
        return Link(name=name, address="", shown=to)
    return Link(name=name, address=to)


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
