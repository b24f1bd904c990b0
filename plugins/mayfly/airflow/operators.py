"""Six thin operators: each renders its fields, calls one step of `mayfly.steps.lifecycle`, and waits.

Their order and wiring is the task group's; nobody should need to use them one by one. Nothing is deleted in `on_kill`:
a killed task's cluster is the teardown's, and the driver sees closing.json or a stale lease.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from mayfly.airflow import members as names
from mayfly.airflow.base import ClusterOperator
from mayfly.airflow.compat import AirflowFailException, AirflowSkipException
from mayfly.airflow.links import CloudJobLink, ConsoleLink, DashboardLink, DaskReportLink, FilesLink, ReportLink
from mayfly.airflow.notify import tell_verdict, telling_failure
from mayfly.airflow.waiting import fail, is_inline, shortest_pause, wait
from mayfly.errors import BackendUnavailable, JobFailed, MayflyError, StoreUnavailable
from mayfly.project import rendering

if TYPE_CHECKING:
    from mayfly.contract import Plan
    from mayfly.steps.lifecycle import Handle, Run
    from mayfly.steps.poke import Poll

log = logging.getLogger("airflow.task.mayfly")

HIGHEST_PRIORITY = 1_000_000
"""Deleting comes before any other waiting task: a queue that is full must not keep clusters alive."""
SPARE_TRIES = 3
"""Tries of run_job beyond the job's own attempts, for pokes that are lost."""
COLLECT_PATIENCE = 600.0
TEARDOWN_PATIENCE = 1800.0
"""Seconds for which a silent store or backend is waited for, beyond what the step itself may take."""


def pins(*, retries: int, delay: float = 10.0, pool: str | None, queue: str | None) -> dict[str, Any]:
    """Arguments that a user's `default_args` must not change, since each could leak a cluster or hide a failure."""
    pinned: dict[str, Any] = {
        "trigger_rule": "all_success",
        "depends_on_past": False,
        "wait_for_downstream": False,
        "retries": retries,
        "retry_delay": timedelta(seconds=delay),
        "retry_exponential_backoff": False,
        "max_retry_delay": None,
        "execution_timeout": None,
        "pool": pool or "default_pool",
        "pool_slots": 1,
        "weight_rule": "absolute",
        "max_active_tis_per_dag": None,
        "max_active_tis_per_dagrun": None,
        "start_date": None,
        "end_date": None,
        "multiple_outputs": False,
        "pre_execute": None,
        "post_execute": None,
        "run_as_user": None,
    }
    return pinned | ({"queue": queue} if queue else {})


class PlanOperator(ClusterOperator):
    """Decide everything, upload the code, write plan.json. Returns the handle, the run's only XCom."""

    def __init__(self, *, max_age: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_age = max_age

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        from mayfly.steps.planning import plan_step

        longest = max([self.job.timeout, *(job.timeout for job in self.members.jobs.values() if job.timeout)])

        def step() -> Poll:
            return plan_step(
                # Its limits say when the cluster expires: they must cover the longest of its jobs.
                job=self.job.model_copy(update={"timeout": longest}),
                target=self.frozen_target(),
                identity=self.identity(context),
                home=self.project().home,
                by=self.by(context),
                jobs=len(self.members.jobs),
                attempts=max(1 + job.retries for job in self.members.jobs.values()),
                max_age=self.max_age,
            )

        with telling_failure(self, context, word="failed"):  # report does not run then
            handle: Handle = wait(context, step, timing=lambda: None, patience=TEARDOWN_PATIENCE)
        return handle.to_json()


class CreateClusterOperator(ClusterOperator):
    """Make the cluster and wait until it can be used, unless nobody would delete it or use it."""

    operator_extra_links = (ConsoleLink(),)

    def execute(self, context: Mapping[str, Any]) -> None:
        why_not = self.members.why_not_create(self.members.states(context))
        if why_not:
            log.warning("No cluster is made: %s", why_not)
            return
        by = self.by(context)
        self.wait(context, lambda run: run.create(by), patience=self.job.start_timeout + TEARDOWN_PATIENCE)
        for name, address in self.pages.items():
            log.info("%s: %s", name, address)


class RunJobOperator(ClusterOperator):
    """Run one script on the cluster; a try joins an attempt that is still running.

    Airflow's tries are not the job's attempts. A poke's process can be lost while the job goes on (a worker that is
    evicted; a rescheduled task that Airflow takes for killed, see `waiting.shortest_pause`), so Airflow gets
    `SPARE_TRIES` more, and `attempts` is counted in the run directory.
    """

    template_fields: Sequence[str] = ("target", "args")
    template_fields_renderers: ClassVar[dict[str, str]] = {"args": "json"}
    operator_extra_links = (
        ReportLink(), DaskReportLink(), FilesLink(), ConsoleLink(), CloudJobLink(), DashboardLink()
    )  # fmt: skip

    def __init__(
        self, *, name: str, script: str, args: Any, attempts: int, timeout: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.attempts = attempts
        self.name = name
        self.script = script
        self.args = args
        self.timeout = timeout
        self._rendered = False

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        from mayfly.steps.lifecycle import Run

        self.target = self.render_template(self.target, context, jinja_env)
        try:
            self._render_args(context, plan=cache(lambda: Run.open(self.handle(context)).plan))
        except (StoreUnavailable, BackendUnavailable) as error:  # a poke has the patience for that; `_run` asks again
            log.warning("No answer while the job's arguments were rendered: %s", error)
        except MayflyError as error:
            fail(error)

    def _render_args(self, context: Mapping[str, Any], *, plan: Callable[[], Plan]) -> None:
        from jinja2 import TemplateError

        if self._rendered:  # what came of it may look like a template
            return
        extra = {
            "inputs": rendering.Names("inputs", lambda: plan().inputs),
            "outputs": rendering.Names("outputs", lambda: plan().outputs),
            "run_date": rendering.run_date(context["dag_run"]),
            "job": self.job.name,
            "target": self.target,
        }
        try:
            self.args = self.render_template(self.args, {**context, **extra})
        except TemplateError as error:  # no retry makes a name known
            raise AirflowFailException(f"job {self.job.name!r}: args {self.args!r}: {error}") from None
        self._rendered = True

    def render_template(self, content: Any, context: Any, jinja_env: Any = None, seen_oids: Any = None) -> Any:
        if isinstance(content, str):
            # Not Airflow's own way for text: it drops a trailing newline, and where a DAG renders native objects,
            # "007" would become a number.
            return rendering.render(content, context, self.get_dag().get_template_env(force_sandboxed=True))
        return super().render_template(content, context, jinja_env, seen_oids)

    def execute(self, context: Mapping[str, Any]) -> None:
        self._run(context, since=time.time(), first=not context.get("task_reschedule_count"))

    def resume(self, context: Mapping[str, Any], event: Any = None, since: float = 0.0) -> None:
        """A trigger says that there is something to decide. `since`: when the wait began, POSIX seconds."""
        self._run(context, since=since, first=False)

    def _run(self, context: Mapping[str, Any], *, since: float, first: bool) -> None:
        from mayfly.steps.lifecycle import JobRequest

        if self.members.states(context).get(names.CREATE) == "skipped":
            # After a job that may be skipped ours runs in spite of that; but perhaps the whole group was skipped.
            raise AirflowSkipException("the cluster was skipped, and so are its jobs")
        by, inline, number = self.by(context), is_inline(context), context["ti"].try_number
        # Without its own a job has the spec's: the plan's is that of the longest job on this cluster.
        timeout = self.timeout or self.job.timeout

        def step(run: Run) -> Poll:
            self._render_args(context, plan=lambda: run.plan)
            args = rendering.as_arguments(self.args, job=self.job.name)
            request = JobRequest(key=self.name, script=self.script, args=args, timeout=timeout)
            try:
                return run.job(request, try_number=number, inline=inline, by=by)
            except JobFailed as error:
                error.retryable = error.retryable and run.dir.last_attempt(self.name) < self.attempts
                raise

        self.wait(
            context,
            step,
            patience=self.job.start_timeout + timeout + TEARDOWN_PATIENCE,
            waited=time.time() - since,
            defer=lambda run: self._defer(run, by=by, since=since, first=first),
        )

    def _defer(self, run: Run, *, by: str, since: float, first: bool) -> None:
        """Wait in the triggerer, where that is safe and there is an attempt to watch."""
        from mayfly.airflow.deferring import choose_here
        from mayfly.steps.lifecycle import Handle

        choice = choose_here(run.plan.target)
        if first:
            log.info("%s", choice)
        attempt = run.dir.last_attempt(self.name)
        if not choice.deferred or not attempt or run.dir.attempt(self.name, attempt).record() is not None:
            return
        from mayfly.airflow.triggers import JobTrigger

        handle = Handle(name=run.plan.name, target=run.plan.target).to_json()
        not_before = time.time() + shortest_pause()
        trigger = JobTrigger(handle=handle, job=self.name, attempt=attempt, by=by, since=since, not_before=not_before)
        self.defer(trigger=trigger, method_name="resume", kwargs={"since": since})


class CollectMetricsOperator(ClusterOperator):
    """Gather what the jobs left behind; never in the way of deletion."""

    def execute(self, context: Mapping[str, Any]) -> None:
        by = self.by(context)
        self.wait(context, lambda run: run.collect(by), patience=COLLECT_PATIENCE)


class DeleteClusterOperator(ClusterOperator):
    """Delete the cluster and write the receipt that proves it."""

    def execute(self, context: Mapping[str, Any]) -> None:
        by = self.by(context)
        self.wait(context, lambda run: run.delete(by), patience=TEARDOWN_PATIENCE, ending=True)


class ReportOperator(ClusterOperator):
    """Write the report, and fail the DAG run unless everything is proven well."""

    operator_extra_links = (ReportLink(),)

    def execute(self, context: Mapping[str, Any]) -> None:
        from mayfly.steps.reporting import report

        states = {name: state or "none" for name, state in self.members.states(context).items() if name != names.REPORT}
        may_skip = frozenset(name for name, job in self.members.jobs.items() if job.may_skip)
        with telling_failure(self, context, word="not proven"):
            verdict = self.wait(context, lambda run: report(run, states, may_skip=may_skip), patience=COLLECT_PATIENCE)
        tell_verdict(self, context, verdict)
        if not verdict.ok:
            raise AirflowFailException("\n".join(["This run is not proven well:", *verdict.problems]))
