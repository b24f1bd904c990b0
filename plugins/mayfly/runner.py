"""One run without Airflow: the same plan, backend, driver and receipt, with this process as the orchestrator.

Whatever happens after the plan, the teardown is made: collect, delete, report. The first Ctrl-C (or SIGTERM, SIGHUP)
ends the job and goes on with the teardown; the second leaves at once. Then the driver ends by itself when its lease
goes stale, and `mayfly delete` or `mayfly reap` writes the receipt.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mayfly.arguments import parse_params, render_args
from mayfly.backends.base import open_backend
from mayfly.backends.local import state_folder
from mayfly.bundle import make_bundle
from mayfly.contract import FrozenTarget, Identity, Plan
from mayfly.errors import DeadlinePassed, InputError, JobFailed, MayflyError, NotProven
from mayfly.lifecycle import JobRequest, Poll, Run
from mayfly.plan import make_plan
from mayfly.planning import plan_step
from mayfly.project import Project
from mayfly.spec import JobSpec
from mayfly.terminal import Terminal

GROUP = "cluster"
JOB_KEY = "run_job"
SUCCESS, FAILED_RUN, BAD_INPUT, NOT_DELETED = 0, 1, 2, 3
"""Exit codes; an interrupted run ends with 128 + the signal's number, as shells know it."""
_PATIENCE_SECONDS = 60.0
"""How long one step may go without an answer from store or backend before it counts as failed."""


class Interrupted(BaseException):
    """The user asked for an end; the teardown follows. No Exception: nothing may swallow it."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Abandoned(BaseException):
    """The user asked twice."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@dataclass
class Interrupts:
    """Turns signals into a wish that is looked at between two pokes: no step is cut in half."""

    asked: int = 0
    obeyed: bool = False

    def note(self, number: int, _frame: object) -> None:
        if self.asked:
            raise Abandoned(number)
        self.asked = number

    def obey(self) -> None:
        if self.asked and not self.obeyed:
            self.obeyed = True
            raise Interrupted(self.asked)

    @contextmanager
    def watched(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self.note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass
class JobRun:
    """`mayfly run`: one job, one cluster, one report."""

    project: Project
    job_name: str
    target_name: str | None
    params: Sequence[str]
    run_date: str
    run_id: str
    terminal: Terminal
    states: dict[str, str] = field(default_factory=dict)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def __call__(self) -> int:
        """The exit code. MayflyError when nothing was started."""
        job = self.project.job(self.job_name)
        target = self.project.frozen_target(self.target_name or job.target)
        params = parse_params(job, self.params)
        require_state_folder()
        with self.interrupts.watched():
            handle = self.wait(
                lambda: plan_step(
                    job=job,
                    target=target,
                    identity=cli_identity(dag_id=job.name, run_id=self.run_id),
                    home=self.project.home,
                    by=self.by,
                    attempts=1 + job.retries,
                ),
                pause=target.timing.poll_inline,
            )
            run = Run.open(handle)
            self.states["plan"] = "success"
            failure: BaseException | None = None
            try:
                try:
                    args = render_args(job, plan=run.plan, params=params, run_date=self.run_date)
                    self.step("create_cluster", run, lambda: run.create(self.by))
                    self.work(run, JobRequest(key=JOB_KEY, script=job.script, args=args), tries=1 + job.retries)
                except (MayflyError, Interrupted) as error:
                    failure = error
                    self.explain(failure, run)
                return self.teardown(run, failure)
            except Abandoned as error:
                self.terminal.progress("")
                self.terminal.warn(
                    "left before the deletion was proven. The job ends by itself within "
                    f"{target.timing.lease_ttl_inline:.0f} s; then run: mayfly delete {run.plan.name}"
                )
                return 128 + error.number

    @property
    def by(self) -> str:
        return f"mayfly run pid {os.getpid()}"

    def work(self, run: Run, request: JobRequest, *, tries: int) -> None:
        for number in range(1, tries + 1):
            try:
                self.step(JOB_KEY, run, lambda n=number: run.job(request, try_number=n, inline=True, by=self.by))  # type: ignore[misc]
                return
            except JobFailed as error:
                if not error.retryable or number == tries:
                    raise
                self.show_lines(error)
                self.terminal.warn(f"{error}\nattempt {number} of {tries} failed; trying again")

    def teardown(self, run: Run, failure: BaseException | None) -> int:
        """Collect, delete and report, each whatever became of the others."""
        code = SUCCESS
        if isinstance(failure, Interrupted):
            code = 128 + failure.number
        elif isinstance(failure, InputError):
            code = BAD_INPUT
        elif failure is not None:
            code = FAILED_RUN
        for name, poke in (("collect_metrics", run.collect), ("delete_cluster", run.delete)):
            try:
                self.step(name, run, lambda poke=poke: poke(self.by))  # type: ignore[misc]
            except MayflyError as error:
                self.terminal.warn(f"{name}: {error}")
                if name == "delete_cluster":
                    code = NOT_DELETED
                    self.terminal.warn(f"deletion is not proven; when the cause is gone: mayfly delete {run.plan.name}")
        try:
            verdict = self.step("report", run, lambda: run.report(self.states))
            return code if verdict.ok else code or FAILED_RUN
        except MayflyError as error:
            self.terminal.warn(f"report: {error}")
            return code or FAILED_RUN

    def explain(self, failure: BaseException, run: Run) -> None:
        if isinstance(failure, Interrupted):
            seconds = run.plan.target.timing.lease_ttl_inline
            self.terminal.warn(
                "interrupted: ending the job, deleting the cluster and writing the receipt. Once more leaves at once: "
                f"the job would then end by itself within {seconds:.0f} s, and the receipt wait for "
                f"`mayfly delete {run.plan.name}`"
            )
            return
        self.show_lines(failure)
        self.terminal.warn(str(failure))

    def show_lines(self, failure: object) -> None:
        for line in getattr(failure, "lines", ()):
            self.terminal.line(line)

    def step(self, name: str, run: Run, poke: Callable[[], Poll]) -> Any:
        """One task of the group, with its state as Airflow would call it."""
        self.states[name] = "failed"
        result = self.wait(poke, pause=run.plan.target.timing.poll_inline)
        self.states[name] = "success"
        return result

    def wait(self, poke: Callable[[], Poll], *, pause: float) -> Any:
        """Poke until it is done. Deadlines are the poke's own; only a lack of answers is borne here, for a while."""
        silent_since: float | None = None
        while True:
            self.interrupts.obey()
            try:
                poll = poke()
                silent_since = None
            except (JobFailed, NotProven, DeadlinePassed):
                raise
            except MayflyError as error:
                silent_since = silent_since or time.monotonic()
                if not error.retryable or time.monotonic() - silent_since > _PATIENCE_SECONDS:
                    raise
                poll = Poll(done=False, progress=f"no answer, trying again: {error}")
            for line in poll.lines:
                self.terminal.line(line)
            if poll.done:
                self.terminal.progress("")
                return poll.result
            if poll.progress:
                self.terminal.progress(poll.progress)
            time.sleep(pause)


def preview(*, job: JobSpec, target: FrozenTarget, home: Path) -> Plan:
    """What `JobRun` would plan, for people to look at: nothing is written, the run id is a placeholder."""
    return make_plan(
        job=job,
        target=target,
        identity=cli_identity(dag_id=job.name, run_id="preview"),
        generation=1,
        capacity=open_backend(target).capacity(),
        home=home,
        code=make_bundle(job.folder)[0],
        now=time.time(),
        owner="preview",
        attempts=1 + job.retries,
    )


def cli_identity(*, dag_id: str, run_id: str) -> Identity:
    """Who runs here: MAYFLY_INSTALLATION, else an id made once in the user's state folder."""
    return Identity(installation=installation_id(), dag_id=dag_id, run_id=run_id, group=GROUP)


def installation_id(environment: Mapping[str, str] = os.environ) -> str:
    given = environment.get("MAYFLY_INSTALLATION")
    if given:
        return given
    path = require_state_folder() / "installation"
    if not path.exists():
        beside = path.with_name(f".installation-{os.getpid()}")
        beside.write_text(f"cli-{secrets.token_hex(6)}\n")
        try:
            os.link(beside, path)  # the first of two wins, and both read the same
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    return path.read_text().strip()


def require_state_folder() -> Path:
    """Said before anything is planned: without it neither this machine's id nor a local cluster can be written down."""
    folder = state_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise InputError(
            f"cannot write {folder}; let MAYFLY_STATE_DIR name a folder on this machine that can be written"
        )
    return folder


def new_run_id() -> str:
    """Unique, and readable in lists."""
    return f"cli__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}_{secrets.token_hex(2)}"
