"""One run without Airflow: the same plan, backend, driver and receipt, with this process as the orchestrator.

Whatever happens after the plan, the teardown is made: collect, delete, report. The first Ctrl-C (or SIGTERM, SIGHUP)
ends the job and goes on with the teardown; in the teardown it changes nothing but the exit code. The second leaves at
once. Then the driver ends by itself when its lease goes stale, and `mayfly delete` or `mayfly reap` writes the receipt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mayfly.backends.base import open_backend
from mayfly.cli.identity import cli_identity, require_state_folder
from mayfly.cli.interrupts import Abandoned, Interrupted, Interrupts
from mayfly.cli.terminal import Terminal
from mayfly.contract import FrozenTarget, Plan
from mayfly.environments.staging import look
from mayfly.errors import DeadlinePassed, InputError, JobFailed, MayflyError, NotProven
from mayfly.plan import describe, make_plan
from mayfly.project.arguments import parse_params, render_args
from mayfly.project.loading import Project
from mayfly.spec.job import JobSpec
from mayfly.staging.bundle import make_bundle
from mayfly.staging.credentials import target_store
from mayfly.steps.lifecycle import JobRequest, Run
from mayfly.steps.planning import plan_step
from mayfly.steps.poke import Poll
from mayfly.steps.reporting import report

JOB_KEY = "run_job"
SUCCESS, FAILED_RUN, BAD_INPUT, NOT_DELETED = 0, 1, 2, 3
"""Exit codes; an interrupted run ends with 128 + the signal's number, as shells know it."""
_PATIENCE_SECONDS = 60.0
"""How long one step may go without an answer from store or backend before it counts as failed."""


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
    ending: str = ""
    """The cluster whose teardown has begun."""

    def __call__(self) -> int:
        """The exit code. MayflyError when nothing was started."""
        job = self.project.job(self.job_name)
        target = self.project.frozen_target(self.target_name or job.target)
        params = parse_params(job, self.params)
        require_state_folder()
        run: Run | None = None
        try:
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
                return self.teardown(run, self.from_create_to_end(run, job, params))
        except (Interrupted, Abandoned) as error:  # the first one gets here from the plan alone
            self.terminal.progress("")
            self.terminal.warn(self.what_is_left(run))
            return 128 + error.number

    def what_is_left(self, run: Run | None) -> str:
        """What to do after a run that was left before its end."""
        if run is None:
            return (
                "left while the run was being planned, before any cluster was asked for. If `mayfly ls` shows its "
                "plan, or an earlier generation of it that was being ended, run: mayfly delete RUN"
            )
        if self.states.get("delete_cluster") == "success":
            return f"left before the report was written. The deletion is proven: mayfly show {run.plan.name}"
        return (
            "left before the deletion was proven. A job that still runs ends by itself within "
            f"{run.plan.target.timing.lease_ttl_inline:.0f} s; then run: mayfly delete {run.plan.name}"
        )

    def from_create_to_end(self, run: Run, job: JobSpec, params: Mapping[str, Any]) -> BaseException | None:
        """Make the cluster and run the job; what went wrong, if something did."""
        try:
            args = render_args(job, plan=run.plan, params=params, run_date=self.run_date)
            self.step("create_cluster", run, lambda: run.create(self.by))
            self.work(run, JobRequest(key=JOB_KEY, script=job.script, args=args), tries=1 + job.retries)
            return None
        except (MayflyError, Interrupted) as error:
            self.explain(error, run)
            return error
        except Abandoned:
            raise
        except BaseException as error:
            # Nothing that was not foreseen, in Mayfly or below it, may leave a cluster either.
            self.teardown(run, error)
            raise

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
        """Collect, delete and report, each whatever became of the others, and of one signal meanwhile."""
        self.ending = run.plan.name
        code = SUCCESS if failure is None else BAD_INPUT if isinstance(failure, InputError) else FAILED_RUN
        for name, poke in (("collect_metrics", run.collect), ("delete_cluster", run.delete)):
            try:
                self.step(name, run, lambda poke=poke: poke(self.by))  # type: ignore[misc]
            except MayflyError as error:
                self.terminal.warn(f"{name}: {error}")
                if name == "delete_cluster":
                    code = NOT_DELETED
                    self.terminal.warn(f"deletion is not proven; when the cause is gone: mayfly delete {run.plan.name}")
        try:
            verdict = self.step("report", run, lambda: report(run, self.states))
            code = code if verdict.ok else code or FAILED_RUN
        except MayflyError as error:
            self.terminal.warn(f"report: {error}")
            code = code or FAILED_RUN
        asked = self.interrupts.asked
        return 128 + asked if asked and code != NOT_DELETED else code

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

    def obey(self) -> None:
        """Look for a signal, between two pokes. Interrupted; in the teardown it asks for what is being done anyway."""
        try:
            self.interrupts.obey()
        except Interrupted:
            if not self.ending:
                raise
            self.terminal.warn(
                "interrupted: the deletion goes on. Once more leaves at once: the receipt would then wait for "
                f"`mayfly delete {self.ending}`"
            )

    def wait(self, poke: Callable[[], Poll], *, pause: float) -> Any:
        """Poke until it is done. Deadlines are the poke's own; only a lack of answers is borne here, for a while."""
        silent_since: float | None = None
        while True:
            self.obey()
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


def preview(*, job: JobSpec, target: FrozenTarget, home: Path) -> tuple[Plan, tuple[str, ...]]:
    """What `JobRun` would plan, and in lines for people: nothing is written, the run id is a placeholder."""
    store = target_store(target)
    places = (*job.inputs.values(), *job.outputs.values())
    staged = look(job=job.name, target=target, home=home, store=store, places=places)
    plan = make_plan(
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
        environment=staged.environment if staged else None,
    )
    return plan, (*describe(plan), *((staged.line(store.url),) if staged else ()))
