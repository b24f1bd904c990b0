"""The verdict, and the report as page and as text: complete runs, half-broken ones, and hostile names."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.contract import Environment as Packed
from mayfly.contract import (
    Failure,
    FailureClass,
    FrozenTarget,
    Identity,
    Limits,
    Outcome,
    Peaks,
    Plan,
    Receipt,
    Record,
    Tasks,
    Timestamp,
    WorkersPlan,
    YarnAccount,
    YarnNodeAccount,
    YarnPlan,
)
from mayfly.contract.nodes import NodeGroup, NodesPlan
from mayfly.report.charts import MAX_POINTS, numbers, tick_step
from mayfly.report.page import render_report
from mayfly.report.summary import render_text, totals, verdict

GB = 10**9
T = 1_795_263_309.0
NAME = "mayfly-trips-0123456789"
OK = {"plan": "success", "create_cluster": "success", "run_job": "success", "delete_cluster": "success"}


def plan(**changes: Any) -> Plan:
    base = Plan(
        name=NAME,
        generation=1,
        identity=Identity(installation="laptop", dag_id="trips", run_id="manual__1", group="cluster"),
        run="0123456789",
        owner="nonce1",
        created_at=Timestamp(T),
        expires_at=Timestamp(T + 9000),
        job="trips",
        target=FrozenTarget(name="local", backend="local", launcher="processes", staging="file:///s"),
        labels={},
        workers=WorkersPlan(minimum=2, maximum=2, cores=1, memory=2 * GB),
        asked=WorkersPlan(minimum=4, maximum=4, cores=1, memory=2 * GB),
        notes=("target local: asked 4, fitted 2",),
        inputs={"trips": "/data/trips"},
        outputs={"table": "gs://bucket/table"},
        limits=Limits(start=300, job=1800, stall=600),
        code="code/abc.zip",
        hash="f00",
        cost_estimate=0.0,
    )
    return replace(base, **changes)


def record(**changes: Any) -> Record:
    base = Record(
        cluster=NAME,
        job="run_job",
        attempt=1,
        outcome=Outcome.SUCCESS,
        exit_code=0,
        started_at=Timestamp(T + 3),
        ended_at=Timestamp(T + 23),
        phases={"run": 15.0, "start Dask": 3.5, "prepare": 0.5, "stop": 1.0},
        peaks=Peaks(workers=2, memory=3 * GB, worker_memory=1_600_000_000, script_memory=200_000_000, cpu_workers=1.9),
        tasks=Tasks(done=1234, failed=1, recomputed=2),
        versions={"dask": "2026.8.0"},
    )
    return replace(base, **changes)


OOM = Failure(
    cls=FailureClass.OUT_OF_MEMORY_WORKER,
    evidence=("worker 1 exceeded 95% memory budget", "  KilledWorker: read-csv"),
    advice="Raise `cluster.worker.memory`.",
)
FAILED: dict[str, Any] = {"outcome": Outcome.FAILED, "failure": OOM, "exit_code": 1}
RECEIPT = Receipt(
    name=NAME,
    generation=1,
    owner="nonce1",
    created_at=Timestamp(T + 1),
    deleted_at=Timestamp(T + 30),
    rule="deleted: nothing of it is found",
    checks=("look-up by name: absent",),
    billed_seconds=29,
    cost=0.0,
    by="airflow delete_cluster try 1",
)


def samples(count: int = 30) -> list[dict[str, object]]:
    return [
        {
            "t": float(number),
            "workers": min(number, 2),
            "memory": number * 100_000_000,
            "memory_limit": min(number, 2) * 2 * GB,
            "cpu_workers": 1.5,
            "cpu_script": 0.1,
            "script_memory": 10**8,
            "done": number * 3,
            "running": 2,
            "waiting": 90 - number * 3,
        }
        for number in range(count)
    ]


def page(**changes: Any) -> str:
    given: dict[str, Any] = {
        "plan": plan(),
        "records": [record()],
        "receipt": RECEIPT,
        "verdict": "success",
        "metrics": {"run_job/1": samples()},
        "links": {
            "run_job/1/dask-report.html": "jobs/run_job/1/dask-report.html",
            "all files": "https://example.org/x",
        },
        "states": OK,
    }
    return render_report(**{**given, **changes})


ACCOUNT = YarnAccount(
    applications=("application_1763715322000_0001", "application_1763715322000_0002"),
    queue="root.batch",
    memory_mib_seconds=3_433_228,
    vcore_seconds=1800,
    containers_started=12,
    containers_failed=2,
    containers_preempted=3,
    queue_wait=4.5,
    nodes={
        "node-2": YarnNodeAccount(containers=5, container_seconds=90.0),
        "node-1": YarnNodeAccount(containers=7, failed=2, preempted=3, container_seconds=3600.0),
    },
)


class Tree(HTMLParser):
    """Elements with their attributes, and the text that a reader sees."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def links(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.elements if tag == "a"]


# ---------------------------------------------------------------- verdict


def judge(**changes: Any) -> Any:
    given: dict[str, Any] = {"plan": plan(), "states": OK, "receipt": RECEIPT, "records": [record()], "may_skip": ()}
    return verdict(**{**given, **changes})


def test_all_well() -> None:
    assert judge() == (True, (), "success")


def test_without_a_receipt_nothing_is_well() -> None:
    ok, problems, word = judge(receipt=None)
    assert (ok, word) == (False, "not proven")
    assert f"mayfly delete {NAME}" in problems[0]


@pytest.mark.parametrize("changes", [{"owner": "somebody"}, {"name": "mayfly-trips-9999999999"}])
def test_another_ones_receipt_proves_nothing(changes: dict[str, str]) -> None:
    assert judge(receipt=replace(RECEIPT, **changes)).word == "not proven"


def test_without_a_plan_nothing_can_be_proven() -> None:
    assert judge(plan=None, receipt=None).word == "not proven"


@pytest.mark.parametrize("step", ["plan", "create_cluster", "run_job", "delete_cluster"])
@pytest.mark.parametrize("state", ["failed", "upstream_failed", "skipped", "none", "running", "removed"])
def test_a_step_that_is_not_success_is_a_problem(step: str, state: str) -> None:
    ok, problems, word = judge(states={**OK, step: state})
    assert (ok, word) == (False, "failed")
    assert f"{step} is {state}" in problems[0]


def test_collecting_and_reporting_do_not_decide() -> None:
    assert judge(states={**OK, "collect_metrics": "failed", "report": "running"}).ok


def test_a_job_that_may_skip() -> None:
    states = {**OK, "extra": "skipped"}
    assert not judge(states=states).ok
    assert judge(states=states, may_skip={"extra"}).ok
    assert judge(states={**OK, "extra_2": "skipped"}, may_skip={"extra"}).ok


def test_the_failure_class_stands_in_the_problem() -> None:
    judged = judge(states={**OK, "run_job": "failed"}, records=[record(**FAILED)])
    assert judged.problems == ("job run_job is failed: out of memory: worker",)


def test_a_retry_that_succeeded_makes_it_good() -> None:
    first = record(**FAILED)
    second = record(attempt=2, started_at=Timestamp(T + 40), ended_at=Timestamp(T + 50))
    assert judge(records=[first, second]).ok
    assert judge(records=[second, first], states={}).ok
    assert not judge(records=[first], states={}).ok


def test_without_states_the_records_decide() -> None:
    assert judge(states={}).ok
    cancelled = record(outcome=Outcome.CANCELLED, failure=Failure(cls=FailureClass.CANCELLED))
    assert judge(states={}, records=[cancelled]).word == "cancelled"
    assert judge(states={}, records=[]).problems == ("no job ran",)


def test_mapped_jobs_find_their_records() -> None:
    records = [record(job="run_job-0"), record(job="run_job-1", **FAILED)]
    judged = judge(states={"run_job_0": "success", "run_job_1": "failed"}, records=records)
    assert judged.problems == ("job run_job_1 is failed: out of memory: worker",)


def test_a_run_under_way_is_no_failure_yet() -> None:
    judged = judge(receipt=None, records=[], states={}, still_open=True)
    assert judged == (True, (), "running")
    assert judge(receipt=None, records=[record(**FAILED)], states={}, still_open=True).word == "failed"
    assert judge(still_open=True) == (True, (), "success"), "the receipt came meanwhile"
    assert "not yet" in text(records=[], receipt=None, verdict=judged.word)


def test_a_users_mark_of_success_is_respected() -> None:
    assert judge(records=[record(**FAILED)]).ok


# ---------------------------------------------------------------- page


def test_the_page_of_a_good_run() -> None:
    tree = Tree(page())
    assert tree.text.startswith("trips: success trips succeeded in 30s success run manual__1")
    for words in (
        "deleted: nothing of it is found",
        "2 x 1 cores / 2 GB",
        "target local: asked 4, fitted 2",
        "75% of 4 GB",
        "1,234",
        "run 15s",
        "dask 2026.8.0",
        "/data/trips",
        "gs://bucket/table",
    ):
        assert words in tree.text
    assert "What is wrong" not in tree.text
    assert tree.links() == ["jobs/run_job/1/dask-report.html", "https://example.org/x"]


def test_the_page_of_a_run_on_yarn() -> None:
    environment = Packed(path="envs/abc.tar.gz", sha256="0" * 64, bytes=140_000_000, python="3.11.7")
    planned = plan(yarn=YarnPlan(queue="batch", node_label="ssd", priority=3), environment=environment)
    found = Tree(page(plan=planned, records=[record(yarn=ACCOUNT)])).text
    for words in (
        "queue batch, node label ssd, priority 3",
        "environment Python 3.11.7, 140 MB (envs/abc.tar.gz)",
        "YARN application application_1763715322000_0001, application_1763715322000_0002",
        "YARN queue root.batch, waited 4.5s in it",
        "containers 12 started, 2 failed, 3 preempted",
        "YARN charged 1 GB-hours, 0.5 core-hours",
        "node node-1 7 containers, 2 failed, 3 preempted, 1h in all node node-2 5 containers, 1m 30s in all",
    ):
        assert words in found
    assert "YARN" not in Tree(page()).text


def test_the_page_of_a_run_on_machines_of_its_own() -> None:
    master = NodeGroup(machine="n2-standard-4", count=1, maximum=1, cores=4, memory=16 << 30)
    workers = replace(master, machine="n2-highmem-8", count=2, maximum=6, yarn_mib=51200, yarn_cores=8, pricing="spot")
    text = page(plan=plan(nodes=NodesPlan(master=master, secondary=workers)))
    assert "master: 1 x n2-standard-4 (4 cores, 16 GiB)" in text
    assert "2 to 6 x n2-highmem-8" in text and "spot" in text


def test_the_page_needs_nothing_from_elsewhere_and_no_script() -> None:
    html = page()
    tags = {tag for tag, _ in Tree(html).elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    assert "default-src 'none'" in html
    assert "@import" not in html and "url(" not in html
    assert not any(name.startswith("on") or name == "style" for _, attrs in Tree(html).elements for name in attrs)


def test_the_page_is_made_for_phones_print_and_dark_screens() -> None:
    html = page()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    for rule in ("@media print", "@media (max-width:", "prefers-color-scheme: dark"):
        assert rule in html


def test_four_plots_and_the_phases_in_their_order() -> None:
    html = page()
    assert re.findall(r"<figcaption>([^<]*)", html) == ["Memory", "CPU, cores busy", "Tasks", "Workers"]
    assert re.findall(r'aria-label="([^"]*)"', html)[0] == "Memory over time"
    text = Tree(html).text
    places = [text.index(f"{name} ") for name in ("prepare 500ms", "start Dask 3.5s", "run 15s", "stop 1s")]
    assert places == sorted(places)
    assert "nan" not in html.lower().replace("finance", "")


def test_failure_comes_first() -> None:
    text = Tree(page(records=[record(**FAILED)], verdict="failed", problems=("job run_job is failed: x",))).text
    assert text.index("out of memory: worker") < text.index("peak memory")
    assert "worker 1 exceeded 95% memory budget KilledWorker: read-csv" in text
    assert "What to do: Raise cluster.worker.memory ." in text
    assert "A retry would end the same way." in text
    assert "job run_job is failed: x" not in text, "said better by the failure above"


def test_each_attempt_of_each_job_has_its_part() -> None:
    records = [
        record(**FAILED),
        record(attempt=2, started_at=Timestamp(T + 40), ended_at=Timestamp(T + 50)),
        record(job="train", started_at=Timestamp(T + 60), ended_at=Timestamp(T + 70)),
    ]
    text = Tree(page(records=records, metrics={"run_job/1": samples(), "train/1": samples(1)})).text
    titles = ["run_job, attempt 1 failed", "run_job, attempt 2 success", "train, attempt 1 success"]
    assert sorted(titles, key=text.index) == titles
    assert "3, of 2 jobs" in text
    assert text.count("Too short to plot") == 1
    assert text.count("No measurements were found") == 1


def test_without_a_record_the_page_says_what_that_means() -> None:
    text = Tree(page(records=[], metrics={"run_job/1": samples()}, verdict="failed")).text
    assert "No record." in text
    assert "run_job, attempt 1 no record" in text
    assert "its driver wrote no record" in text


def test_without_a_receipt_the_page_says_what_that_means() -> None:
    judged = judge(receipt=None)
    text = Tree(page(receipt=None, verdict=judged.word, problems=judged.problems)).text
    assert text.startswith("trips: not proven trips: deletion is not proven")
    assert f"mayfly delete {NAME}" in text
    assert "It ends by itself at 2026-11-21 14:45:09 UTC at the latest" in text


def test_with_nothing_but_a_plan() -> None:
    html = render_report(plan=plan(notes=()), records=[], receipt=None, verdict="not proven")
    text = Tree(html).text
    assert "No record." in text and "No receipt." in text


@pytest.mark.parametrize(
    ("address", "followed"),
    [
        ("https://dask.example/x", True),
        ("http://127.0.0.1:8080/x", True),
        ("file:///s/runs/x", True),
        ("jobs/run_job/1/driver.log", True),
        ("javascript:alert(1)", False),
        ("JavaScript:alert(1)", False),
        ("\n java\tscript:alert(1)", False),
        ("java\nscript:alert(1)", False),
        ("data:text/html,<script>alert(1)</script>", False),
        ("vbscript:x", False),
        ("gs://bucket/runs/x", False),
    ],
)
def test_only_harmless_addresses_become_links(address: str, followed: bool) -> None:
    tree = Tree(page(links={"the link": address}))
    assert tree.links() == ([address] if followed else [])
    assert "the link" in tree.text


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}{% raw %}`</code><b>`\u2028]]>"


def test_nothing_from_outside_becomes_markup() -> None:
    evil = Failure(cls=FailureClass.USER_ERROR, evidence=(HOSTILE, HOSTILE), advice=HOSTILE)
    target = FrozenTarget(name=HOSTILE, backend=HOSTILE, launcher=HOSTILE, staging=HOSTILE)
    who = Identity(installation=HOSTILE, dag_id=HOSTILE, run_id=HOSTILE, group=HOSTILE, map_index=3)
    sample = {**samples()[5], HOSTILE: 1, "workers": HOSTILE}
    html = page(
        plan=plan(
            job=HOSTILE, name=HOSTILE, target=target, identity=who, notes=(HOSTILE,), owner=HOSTILE, code=HOSTILE,
            hash=HOSTILE, inputs={HOSTILE: HOSTILE}, outputs={HOSTILE: HOSTILE},
        ),
        records=[
            record(
                job=HOSTILE, outcome=Outcome.FAILED, failure=evil, notes=(HOSTILE,), versions={HOSTILE: HOSTILE},
                phases={HOSTILE: 3.0, "run": 1.0}, by=HOSTILE,
            )
        ],
        receipt=replace(RECEIPT, rule=HOSTILE, checks=(HOSTILE,), by=HOSTILE),
        verdict=HOSTILE,
        problems=(HOSTILE,),
        metrics={f"{HOSTILE}/1": [*samples(), sample], f"{HOSTILE}/2": samples()},
        links={HOSTILE: HOSTILE, f"{HOSTILE}/1/{HOSTILE}": "javascript:alert(1)"},
        states={HOSTILE: HOSTILE},
    )  # fmt: skip
    plain = {tag for tag, _ in Tree(page(records=[record(**FAILED)], receipt=None, problems=("`x`",))).elements}
    tree = Tree(html)
    assert {tag for tag, _ in tree.elements} <= plain
    assert not any(name.startswith("on") for _, attrs in tree.elements for name in attrs)
    assert "49" not in re.findall(r"alert\(2\)&gt;(.{2})", html)
    assert html.count("&lt;script&gt;alert(1)") > 20


# ---------------------------------------------------------------- plots


def test_thinning_keeps_peaks_and_the_end() -> None:
    rows = numbers([{"t": t, "memory": 10 * GB if t == 777 else t} for t in range(5000)], ["memory"])
    assert len(rows) <= MAX_POINTS
    assert max(row["memory"] for row in rows) == 10 * GB
    assert rows[-1]["t"] == 4999


def test_odd_samples_are_left_out() -> None:
    odd: list[Any] = [
        {},
        {"t": None},
        {"t": "1"},
        {"t": -5, "memory": 1},
        {"t": float("nan"), "memory": 1},
        {"t": 2, "memory": float("inf")},
        {"t": 1, "memory": True},
        3,
        None,
        "x",
    ]
    assert numbers(odd, ["memory"]) == [{"t": 1.0}, {"t": 2.0}]
    assert "Too short" in page(metrics={"run_job/1": odd[:5]})
    Tree(page(metrics={"run_job/1": odd}))


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["t", "memory", "workers", "memory_limit", "done", "cpu_workers"]),
            st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.none(), st.text(max_size=5), st.booleans()),
        ),
        max_size=40,
    )
)
def test_whatever_was_measured_the_page_is_drawn(found: list[dict[str, object]]) -> None:
    html = page(metrics={"run_job/1": found})
    drawn = re.findall(r'(?:d|x|y|width|x1|x2|y1|y2)="([^"]*)"', html)
    assert not any(word in place.lower() for place in drawn for word in ("nan", "inf"))


@pytest.mark.parametrize(
    ("highest", "whole", "step"),
    [(0, False, 1), (4 * GB, False, GB), (2, True, 1), (3, True, 1), (100, True, 50), (0.7, False, 0.2)],
)
def test_ticks_are_round(highest: float, whole: bool, step: float) -> None:
    assert tick_step(highest, whole=whole) == pytest.approx(step)


# ---------------------------------------------------------------- text


def text(**changes: Any) -> str:
    given: dict[str, Any] = {"plan": plan(), "records": [record()], "receipt": RECEIPT, "verdict": "success"}
    return render_text(**{**given, **changes})


def test_text_of_a_good_run() -> None:
    assert text(report="/s/report.html").splitlines() == [
        "trips: success in 30s on target local (2 x 1 cores / 2 GB)",
        "  note       target local: asked 4, fitted 2",
        "  phases     prepare 500ms, start Dask 3.5s, run 15s, stop 1s",
        "  peak       3 GB of 4 GB in 2 workers, script 200 MB",
        "  tasks      1234 done, 1 failed, 2 recomputed",
        "  deletion   proven at 2026-11-21T12:15:39.000Z: deleted: nothing of it is found; lived 29s, 0.00 USD",
        "  report     /s/report.html",
    ]


def test_text_of_a_bad_run_tells_why_and_what_to_do() -> None:
    found = text(records=[record(**FAILED, workers_lost=4)], receipt=None, verdict="not proven", problems=("a\nb",))
    assert "  problem    a b" in found
    assert "  run_job, attempt 1: out of memory: worker\n    | worker 1 exceeded" in found
    assert "\n    |   KilledWorker: read-csv\n" in found
    assert "Raise `cluster.worker.memory`." in found
    assert "4 workers lost" in found
    assert "NOT PROVEN" in found


def test_text_of_a_run_on_yarn() -> None:
    assert (
        "\n  YARN       application application_1; queue default, waited 0s in it; containers 1 started; "
        "charged 0 GB-hours, 0 core-hours\n"
    ) in text(
        records=[record(yarn=YarnAccount(applications=("application_1",), queue="default", containers_started=1))]
    )


def test_text_without_a_record() -> None:
    assert "record     none" in text(records=[])


def test_text_cannot_move_the_cursor() -> None:
    evil = Failure(cls=FailureClass.USER_ERROR, evidence=("\x1b[2J\rgone",), advice="\x1b]0;x\x07")
    found = text(records=[record(outcome=Outcome.FAILED, failure=evil, notes=("\x1b[1A",))], problems=("\x07",))
    assert not any(ord(char) < 32 and char != "\n" for char in found)


def test_totals_add_what_adds_up_and_keep_the_highest_of_the_rest() -> None:
    both = totals([record(), record(attempt=2, peaks=Peaks(workers=1, memory=4 * GB))])
    assert both.peaks == replace(record().peaks, memory=4 * GB)
    assert both.tasks.done == 2468
    assert both.phases["run"] == 30
    assert both.seconds == 40
    assert totals([]).peaks == Peaks()
    odd = totals([record(peaks=Peaks(memory=900, worker_memory=930))]).peaks
    assert (odd.memory, odd.worker_memory) == (930, 930), "all workers use no less than the largest"
