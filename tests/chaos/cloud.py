"""One run under one schedule: the real backend on the emulated API, the real steps poked as Airflow pokes them, the
real carrier; only in the driver's place stands something small. Many runs at once, each in a project of its own."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

# Imported before the clocks of many runs at once run: the first verb of each would wait for it.
import google.cloud.dataproc_v1  # noqa: F401

from mayfly.backends.dataproc import DataprocBackend
from mayfly.contract import FrozenTarget, Identity, JobOrder, Outcome, Receipt, Timing
from mayfly.contract.nodes import GcpPlan
from mayfly.errors import MayflyError
from mayfly.names import run_key
from mayfly.spec.job import ClusterSpec, JobSpec, WorkerSpec, WorkersRange
from mayfly.staging.stores import open_store
from mayfly.steps.lifecycle import Handle, JobRequest, Run
from mayfly.steps.planning import plan_step
from mayfly.steps.reporting import report
from tests.chaos.schedules import POLICY_VERBS, Event, Schedule
from tests.emulators.dataproc.client import Emulator
from tests.killpoints.actors import RETRIES, STEPS, TEARDOWN

SPEED = 300.0
"""Of TTLs: the plan's maximum age (some 50 min) is 10 s."""
CALL_DEADLINE = 6.0
"""No call waits for longer than 2 s then, see `Verb`."""
PATIENCE = 240.0
"""Seconds for one try of a step."""
SLOW = 3.0
"""Seconds that a poke needs only where the machine does not get to it: the backend's pauses are 1.75 s at most."""
NO_ANSWER = "no answer of"
"""What a step fails with that was so slow that a verb's deadline passed (`Verb`'s words)."""
START, START_OF_THE_STUCK = 120.0, 6.0
"""Seconds to come up: none passes but that of clusters that never do, however long a loaded machine takes."""

# Keeps the real driver's promises: at most once an attempt, ends when asked, a record at the end.
DRIVER = """
import json, os, pathlib, sys, time
def main(args):
    rundir, job, attempt = args
    run = pathlib.Path(rundir.removeprefix("file://"))
    folder = run / "jobs" / job / attempt
    try:
        os.close(os.open(folder / "started.json", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return 17
    with open(run.parents[1] / "ran.txt", "a") as f:
        f.write(f"{run.name} {job} {attempt}\\n")
    env = json.loads((folder / "job.json").read_text())["env"]
    outcome, until = env["OUTCOME"], time.time() + float(env["SECONDS"])
    while time.time() < until:
        time.sleep(0.02)
        if (run / "closing.json").exists() or (folder / "cancel.json").exists():
            outcome = "cancelled"
            break
    failure = None if outcome == "success" else {"cls": "cancelled" if outcome == "cancelled" else "user_error"}
    (folder / ".record").write_text(json.dumps({
        "cluster": run.name, "job": job, "attempt": int(attempt), "outcome": outcome, "failure": failure,
        "exit_code": 0, "started_at": "2026-11-21T10:00:00Z", "ended_at": "2026-11-21T10:00:01Z"}))
    try:
        os.link(folder / ".record", folder / "record.json")
    except FileExistsError:
        pass
    return 0 if outcome == "success" else 1
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


class StandInDriver(DataprocBackend):
    """The backend with `DRIVER` in the driver's place; asks for a silent job soon."""

    quiet_seconds = 0.2

    def submit(self, order: JobOrder, *, rundir: str) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("lib/mayfly/__init__.py", "")
            archive.writestr("lib/mayfly/driver/__init__.py", "")
            for name in ("__main__", "supervisor"):  # however the carrier starts it
                archive.writestr(f"lib/mayfly/driver/{name}.py", DRIVER)
        open_store(self.target.staging).create("code/stand-in.zip", buffer.getvalue())
        super().submit(replace(order, code="code/stand-in.zip"), rundir=rundir)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How a run went: the verdict's word (of each generation), and what must never be."""

    schedule: Schedule
    words: tuple[str, ...]
    wrongs: tuple[str, ...]
    seconds: float


class CloudRun:
    """`folder` is shared by all runs: one staging place."""

    def __init__(self, schedule: Schedule, *, emulator: Emulator, folder: Path, backend: str) -> None:
        self.schedule, self.emulator, self.folder, self.backend = schedule, emulator, folder, backend
        self.project = f"chaos-{schedule.seed}"
        self.identity = Identity(
            installation=f"chaos-{os.getpid()}", dag_id="dag", run_id=f"run-{schedule.seed}", group="cluster"
        )
        self.handles: list[Handle] = []
        self.words: list[str] = []
        self.problems: list[list[str]] = []
        """Of each generation: the verdict's, and what the steps said."""
        self.wrongs: list[str] = []
        self.rules: list[str] = []
        self.longest: list[float] = []
        """Of each generation: seconds of the poke that took longest."""

    @property
    def target(self) -> FrozenTarget:
        return FrozenTarget(
            name="gcp",
            backend=self.backend,
            launcher="yarn" if self.schedule.grows else "processes",
            staging=f"file://{self.folder}/staging",
            python=sys.executable,
            timing=Timing(stop_grace=0.3, status=0.02, poll_inline=0.05),
            gcp=GcpPlan(project=self.project, region="europe-west3", call_deadline=CALL_DEADLINE, settle=0.5),
        )

    @property
    def spec(self) -> JobSpec:
        workers = WorkersRange(minimum=1, maximum=20 if self.schedule.grows else 1)
        cluster = ClusterSpec(workers=workers, worker=WorkerSpec(cores=1, memory=10**9))
        return JobSpec(
            name="case",
            folder=self.folder / "job",
            script="job.py",
            target="gcp",
            cluster=cluster,
            retries=RETRIES["job"],
            start_timeout=START_OF_THE_STUCK if self._stuck() else START,
            timeout=10.0,
            env={"SECONDS": str(self.schedule.job_seconds), "OUTCOME": self.schedule.job_outcome},
        )

    def _stuck(self) -> bool:
        """Whether this generation's cluster may never come up; only the first one meets faults."""
        rules = self.schedule.rules if len(self.longest) == 1 else ()
        return any((rule["on"], rule["do"]) == ("boot", "stuck") for rule in rules)

    # -- the run, as Airflow has it

    def go(self) -> Finding:
        began = time.monotonic()
        for rule in self.schedule.rules:
            self.rules.append(self.emulator.rule(project=self.project, **rule))
        self._generation(list(self.schedule.events))
        if self.schedule.again:
            for rule in self.rules:
                self.emulator.remove_rule(rule)
            self._generation([])
        return Finding(
            schedule=self.schedule,
            words=tuple(self.words),
            wrongs=tuple(self.wrongs),
            seconds=time.monotonic() - began,
        )

    def _generation(self, events: list[Event]) -> None:
        states = dict.fromkeys(STEPS, "none")
        self.problems.append([])
        self.longest.append(0.0)
        handle: Handle | None = None
        for step in STEPS:
            if step in TEARDOWN and states["plan"] != "success":
                continue
            if step not in TEARDOWN and any(states[before] != "success" for before in STEPS[: STEPS.index(step)]):
                states[step] = "upstream_failed"
                continue
            for try_number in range(1, RETRIES[step] + 2):
                states[step], result = self._try(step, try_number, handle, states, events)
                if step == "plan" and result is not None:
                    handle = result
                    self.handles.append(result)
                if states[step] in ("success", "marked"):
                    break
            states[step] = "failed" if states[step] == "marked" else states[step]
        if states["report"] != "success":
            self.words.append("none")

    def _try(
        self, step: str, try_number: int, handle: Handle | None, states: dict[str, str], events: list[Event]
    ) -> tuple[str, Any]:
        deadline, pokes = time.monotonic() + PATIENCE, 0
        try:
            while True:
                pokes += 1
                for event in events:
                    if (event.step, event.poke) == (step, pokes):
                        events.remove(event)
                        return ("marked" if event.what == "marked" else "failed"), None
                began = time.monotonic()
                try:
                    poll = self._poke(step, try_number, handle, states)
                finally:
                    self.longest[-1] = max(self.longest[-1], time.monotonic() - began)
                if poll.done:
                    if step == "report":
                        self.words.append(poll.result.word)
                        self.problems[-1] += poll.result.problems
                    return "success", poll.result
                if time.monotonic() > deadline:
                    self.wrongs.append(f"{step} neither ended nor failed in {PATIENCE} s: {poll.progress}")
                    return "failed", None
                time.sleep(0.05)
        except MayflyError as error:
            self.problems[-1].append(f"{step} try {try_number}: {type(error).__name__}: {error}")
        except Exception as error:
            self.wrongs.append(f"{step} try {try_number} broke: {type(error).__name__}: {error}")
        return "failed", None

    def _poke(self, step: str, try_number: int, handle: Handle | None, states: dict[str, str]) -> Any:
        by = f"{step} try {try_number}"
        if step == "plan":
            return plan_step(
                job=self.spec, target=self.target, identity=self.identity, home=self.folder, by=by, attempts=2
            )
        assert handle is not None
        run = Run.open(handle)
        if step == "job":
            request = JobRequest(key="run_job", script="job.py")
            return run.job(request, try_number=try_number, inline=True, by=by)
        if step == "report":
            names = {"plan": "plan", "create": "create_cluster", "job": "run_job", "delete": "delete_cluster"}
            return report(run, {name: states[of] for of, name in names.items()})
        return {"create": run.create, "collect": run.collect, "delete": run.delete}[step](by)

    # -- the audit, when all is over and every TTL has passed

    def audit(
        self,
        *,
        history: Sequence[dict[str, Any]],
        policies: Sequence[str],
        ran: Sequence[str],
        fired: dict[str, int],
    ) -> Iterator[str]:
        mine = [each for each in history if each["labels"].get("run") == run_key(self.identity)]
        for each in mine:
            if each["gone_at"] is None:
                yield f"{each['name']} is still there"
        lives = sorted((each["made_at"], each["gone_at"] or 1e12) for each in mine)
        for (_, gone), (made, _) in pairwise(lives):
            if made < gone:
                yield f"two clusters at once: {lives}"
        if len(set(ran)) != len(ran):
            yield f"an attempt ran twice: {ran}"
        for number, handle in enumerate(self.handles):
            yield from self._audit_generation(number, handle, [e for e in mine if e["name"] == handle.name])
        if policies and self._must_tidy(fired):
            yield f"every cluster is proven gone, and their autoscaling policy is still there: {policies}"
        trouble = any(fired.get(rule) for rule in self.rules) or self.schedule.events
        trouble = trouble or self.schedule.job_outcome != "success"
        first = self.words[0] if self.words else "none"
        first_slow, last_slow = (self._too_slow(number, mine) for number in (0, -1))
        if first != "success" and (self.schedule.harmless or not trouble) and not first_slow:
            yield f"nothing stood in its way, and the verdict is {first!r}: {self.problems[0]}"
        second = self.words[-1:] if self.schedule.again and self.schedule.job_outcome == "success" else ["success"]
        if second != ["success"] and not last_slow:
            yield f"the second time nothing stood in its way, and the verdicts are {self.words}: {self.problems}"

    def _too_slow(self, number: int, lives: Sequence[dict[str, Any]]) -> bool:
        """Whether it was this machine that failed a generation: the TTL came first, or an answer did not come."""
        names = {handle.name for handle in self.handles[number:][:1]}
        if any(each["name"] in names and each["how_gone"] != "delete" for each in lives):
            return True
        return self.longest[number] > SLOW and any(NO_ANSWER in problem for problem in self.problems[number])

    def _must_tidy(self, fired: dict[str, int]) -> bool:
        """Whether no policy may be left: a verb that was too slow leaves it, and so does a call that comes late."""
        if max(self.longest) > SLOW or not all(Run.open(handle).dir.receipt() for handle in self.handles):
            return False
        late = {"delay", "hang"}
        return not any(
            fired.get(rule) and given["on"] in POLICY_VERBS and given["do"] in late
            for rule, given in zip(self.rules, self.schedule.rules, strict=True)
        )

    def _audit_generation(self, number: int, handle: Handle, lives: Sequence[dict[str, Any]]) -> Iterator[str]:
        run = Run.open(handle)
        receipt: Receipt | None = run.dir.receipt()
        word = self.words[number] if number < len(self.words) else "none"
        if receipt is not None:
            # Machines may be older than the receipt, never younger, and none may outlive it.
            late = [each for each in lives if each["gone_at"] is None or each["gone_at"] > receipt.deleted_at]
            if late:
                yield f"the receipt ({receipt.rule}) of {receipt.deleted_at} is not true: {late}"
            if lives and receipt.rule.startswith("never asked"):
                yield f"the receipt says {receipt.rule!r} and there was a cluster"
        elif word != "none" and word != "not proven":
            yield f"no receipt, and the verdict is {word!r}"
        succeeded = any(record.outcome is Outcome.SUCCESS for record in run.records())
        if word == "success" and not (succeeded and receipt is not None and lives):
            yield f"green without a job that succeeded on a cluster that is proven gone: {receipt}"
        if word == "success" and self.schedule.job_outcome != "success":
            yield "green although the job failed"


def run_all(
    schedules: Sequence[Schedule],
    *,
    emulator: Emulator,
    folder: Path,
    at_once: int = 8,
    backend: str = "tests.chaos.cloud:StandInDriver",
    speed: float = SPEED,
) -> list[Finding]:
    """All of them, several at a time; then every TTL passes, and each is audited."""
    (folder / "job").mkdir(parents=True)
    (folder / "job" / "job.py").write_text("")
    emulator.settings(speed=speed, create=0.1, delete=0.1, preempt_notice=0.2, list_lag=0.3)
    runs = [CloudRun(schedule, emulator=emulator, folder=folder, backend=backend) for schedule in schedules]
    with ThreadPoolExecutor(at_once) as pool:
        findings = list(pool.map(CloudRun.go, runs))
    for run in runs:
        for rule, given in zip(run.rules, run.schedule.rules, strict=True):
            if given["on"] == "shutdown":  # what is stuck there has been stuck for long enough
                emulator.remove_rule(rule)
    deadline = time.monotonic() + PATIENCE
    while emulator.clusters() and time.monotonic() < deadline:
        time.sleep(0.2)
    history, policies = emulator.history(), emulator.policies()
    fired, ran = emulator.fired(), _ran(folder)
    by_project: dict[str, list[dict[str, Any]]] = {}
    for each in history:
        by_project.setdefault(each["project"], []).append(each)
    audited = []
    for run, finding in zip(runs, findings, strict=True):
        names = {handle.name for handle in run.handles}
        lines = [line for line in ran if line.split()[0] in names]
        left = [policy for policy in policies if policy.startswith(f"projects/{run.project}/")]
        wrongs = tuple(run.audit(history=by_project.get(run.project, []), policies=left, ran=lines, fired=fired))
        audited.append(replace(finding, wrongs=(*finding.wrongs, *wrongs)))
    return audited


def _ran(folder: Path) -> list[str]:
    path = folder / "staging" / "ran.txt"
    return path.read_text().splitlines() if path.exists() else []


def dump(findings: Sequence[Finding]) -> str:
    """For people: how many ended how."""
    words: dict[str, int] = {}
    for finding in findings:
        words[" then ".join(finding.words) or "none"] = words.get(" then ".join(finding.words) or "none", 0) + 1
    return json.dumps(words, sort_keys=True)
