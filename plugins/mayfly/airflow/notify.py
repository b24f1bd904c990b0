"""Telling people how a run ended: `notify:` of job.yaml, any notifier of Airflow, once per run.

Airflow's own task callbacks do not run after a user's mark or a SIGKILL, and run twice after the loss of a supervisor.
So report tells, since it runs in almost every case and knows the verdict; plan tells when it fails for good, since
report does not run then; and a callback, which the group adds to its DAG's own, tells whatever neither of them could.

"Once" is a file `notified/<notifier>.json` in the run directory, or an XCom where there is no run directory yet. It is
written *after* the notifier has returned: a process that dies in between leads to a second message, not to none.
A notifier that fails or hangs is logged and changes no verdict.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from mayfly.airflow import members as names
from mayfly.airflow.compat import AirflowFailException, AirflowRescheduleException, AirflowSkipException, conf
from mayfly.errors import InputError, MayflyError

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from mayfly.airflow.base import ClusterOperator
    from mayfly.airflow.members import Members
    from mayfly.report.summary import Verdict
    from mayfly.spec.job import JobSpec
    from mayfly.spec.notify import NotifySpec
    from mayfly.steps.lifecycle import Run

log = logging.getLogger("airflow.task.mayfly")

XCOM = "notified"
SECONDS = 60.0
"""How long one notifier may take: a mail server that does not answer must not keep a run from its end."""
_told_here: set[tuple[str, str, str, int, str]] = set()
"""What this process has told. In `airflow dags test` all tasks and the callback are one process."""
_well_here: dict[tuple[str, str, str, int], bool] = {}
"""Whether the clusters whose end this process has seen ended well."""


def tell_verdict(operator: ClusterOperator, context: Mapping[str, Any], verdict: Verdict) -> None:
    """Called by report once the page is written."""
    from mayfly.steps.lifecycle import Run

    _well_here[_where(operator, context)] = verdict.ok
    if not operator.job.notify:
        return
    run = _quietly(lambda: Run.open(operator.handle(context)))
    _tell(
        operator.job,
        context,
        where=_where(operator, context),
        ok=verdict.ok,
        memory=_RunMemory(run, by=operator.by(context)) if run else _TaskMemory(context["ti"]),
        facts=_facts(operator.job, run, word=verdict.word, problems=verdict.problems),
        url=_url(*_where(operator, context)),
    )


@contextmanager
def telling_failure(operator: ClusterOperator, context: Mapping[str, Any], *, word: str) -> Iterator[None]:
    """For plan and report: tell when what is inside fails for good. `word` is the verdict then."""
    try:
        yield
    except (AirflowRescheduleException, AirflowSkipException):
        raise
    except Exception as error:
        if operator.job.notify and _is_final(error, context):
            _well_here[_where(operator, context)] = False
            _tell(
                operator.job,
                context,
                where=_where(operator, context),
                ok=False,
                memory=_TaskMemory(context["ti"]),
                facts=_facts(operator.job, None, word=word, problems=(f"{operator.task_id}: {error}",)),
                url=_url(*_where(operator, context)),
            )
        raise


def add_callback(dag: DAG, job: JobSpec, members: Members) -> None:
    """Beside the DAG's own `on_failure_callback`, when somebody wants to hear of failures."""
    if not any(spec.wanted(ok=False) for spec in job.notify):
        return
    own = dag.on_failure_callback
    others = own if isinstance(own, list) else [own] if own else []
    dag.on_failure_callback = [*others, callback(job, members)]
    dag.has_on_failure_callback = True  # Airflow reads it off the constructor's arguments


def callback(job: JobSpec, members: Members) -> Callable[[Mapping[str, Any]], None]:
    """For a DAG that failed: tells of each cluster of this group that did not end well. Runs in the dag-processor."""

    def notify_of_failure(context: Mapping[str, Any]) -> None:
        dag_id, run_id = str(context["dag"].dag_id), str(context["run_id"])
        if not hasattr(context["dag"], "get_template_env"):  # `airflow dags test` has a DAG without its code here
            context = {key: value for key, value in context.items() if key != "dag"}
        for index, states in _ended_badly(members, dag_id, run_id).items():
            _tell_late(job, context, where=(dag_id, run_id, members.group_id, index), states=states)

    return notify_of_failure


def _ended_badly(members: Members, dag_id: str, run_id: str) -> dict[int, dict[str, str | None]]:
    """States by map index, of those clusters alone: a DAG may have failed by what is none of the group's.

    One whose report is green ended well, and one whose plan was skipped never was.
    """
    found = _states(dag_id, run_id, members.group_id)
    if not found:  # in `airflow dags test` nobody answers any more, but then the tasks were here
        group = (dag_id, run_id, members.group_id)
        here = {where[-1]: well for where, well in _well_here.items() if where[:-1] == group}
        return {index: {} for index, well in (here or {-1: False}).items() if not well}
    states = {index: members.states_of(index, found) for index in members.clusters(found)}
    return {
        index: each
        for index, each in states.items()
        if each.get(names.REPORT) != "success" and each.get(names.PLAN) not in ("skipped", "upstream_failed")
    }


def _tell_late(
    job: JobSpec, context: Mapping[str, Any], *, where: tuple[str, str, str, int], states: Mapping[str, str | None]
) -> None:
    """What neither plan nor report has told."""
    if all((*where, _key(spec)) in _told_here for spec in job.notify if spec.wanted(ok=False)):
        return
    planned = states.get(names.PLAN, "success") == "success"
    run = _quietly(lambda: _find_run(job, where)) if planned else None
    bad = [f"{name} is failed; its log says why" for name, state in states.items() if state == "failed"]
    _tell(
        job,
        context,
        where=where,
        ok=False,
        memory=_AnyMemory(where, _RunMemory(run, by="the DAG's callback") if run else None),
        facts=_facts(job, run, word="failed", problems=bad or [str(context.get("reason") or "no reason is known")]),
        url=_url(*where),
    )


# ---------------------------------------------------------------- what was told


class _Memory(Protocol):
    def told(self, key: str) -> bool: ...

    def note(self, key: str) -> None: ...


class _RunMemory:
    """In the run directory: each generation of a cleared run is told of anew."""

    def __init__(self, run: Run, *, by: str) -> None:
        self._dir, self._by = run.dir, by

    def told(self, key: str) -> bool:
        return self._dir.store.get(f"{self._dir.root}/notified/{key}.json") is not None

    def note(self, key: str) -> None:
        import time

        from mayfly.contract import Notified, Timestamp

        self._dir.create(f"notified/{key}.json", Notified(at=Timestamp(time.time()), by=self._by))


class _TaskMemory:
    """With the task that tells, for the callback. Airflow forgets it when the task is cleared."""

    def __init__(self, ti: Any) -> None:
        self._ti = ti
        self._keys: list[str] = []

    def told(self, key: str) -> bool:
        return key in self._keys

    def note(self, key: str) -> None:
        self._keys.append(key)
        self._ti.xcom_push(key=XCOM, value=self._keys)


class _AnyMemory:
    """For the callback: what plan and report have left in a `_TaskMemory`, and what is in the run directory."""

    def __init__(self, where: tuple[str, str, str, int], run: _RunMemory | None) -> None:
        self._where, self._run = where, run

    def told(self, key: str) -> bool:
        return (self._run is not None and bool(_quietly(lambda: self._run.told(key)))) or self._told_by_tasks(key)

    def _told_by_tasks(self, key: str) -> bool:
        from airflow.sdk.bases.xcom import BaseXCom

        dag_id, run_id, group, index = self._where
        tasks = (f"{group}.{name}" for name in (names.PLAN, names.REPORT))
        left = (
            BaseXCom.get_one(key=XCOM, dag_id=dag_id, run_id=run_id, task_id=task, map_index=index) for task in tasks
        )
        return any(key in (keys or ()) for keys in left)

    def note(self, key: str) -> None:
        if self._run is not None:
            self._run.note(key)


# ---------------------------------------------------------------- inside


def _tell(
    job: JobSpec,
    context: Mapping[str, Any],
    *,
    where: tuple[str, str, str, int],
    ok: bool,
    memory: _Memory,
    facts: Mapping[str, Any],
    url: str,
) -> None:
    for spec in job.notify:
        key = _key(spec)
        here = (*where, key)
        # An answer that does not come counts as "not told": twice is better than never.
        if not spec.wanted(ok=ok) or here in _told_here or _quietly(lambda key=key: memory.told(key)):
            continue
        try:
            _call(spec, {**context, "mayfly": {**facts, "url": url}})
        except Exception as error:
            log.warning("Nobody was told: notifier %s failed: %s: %s", spec.notifier, type(error).__name__, error)
            continue
        log.info("Told how the run ended: %s", spec.notifier)
        _told_here.add(here)
        _quietly(lambda key=key: memory.note(key))


def _key(spec: NotifySpec) -> str:
    """Names a notifier with its arguments, in whatever order job.yaml lists them."""
    return hashlib.sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:10]


def _call(spec: NotifySpec, context: dict[str, Any]) -> None:
    from airflow.sdk import BaseNotifier

    module, _, name = spec.notifier.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    if not (isinstance(cls, type) and issubclass(cls, BaseNotifier)):
        raise InputError(f"{spec.notifier} is no notifier of Airflow; name a subclass of airflow.sdk.BaseNotifier")
    with _at_most(SECONDS):
        cls(**copy.deepcopy(spec.args))(context)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """TimeoutError inside after `seconds`; no limit where signals cannot be had."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"it took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _facts(job: JobSpec, run: Run | None, *, word: str, problems: Sequence[str]) -> dict[str, Any]:
    """`mayfly` in the notifier's context and templates. Texts are empty where there is nothing to say."""
    facts: dict[str, Any] = {
        "verdict": word,
        "problems": list(problems),
        "job": job.name,
        "target": "",
        "cluster": "",
        "run_directory": "",
        "report": "",
        "receipt": "",
    }
    if run is None:
        return facts
    facts |= {"target": run.plan.target.name, "cluster": run.plan.name, "run_directory": run.dir.url}
    receipt = _quietly(run.dir.receipt)
    if receipt is not None:
        facts["receipt"] = receipt.rule
    page = f"{run.dir.root}/report.html"
    if _quietly(lambda: run.store.get(page)) is not None:
        facts["report"] = f"{run.store.url}/{page}".removeprefix("file://")
    return facts


def _is_final(error: Exception, context: Mapping[str, Any]) -> bool:
    ti = context["ti"]
    return isinstance(error, AirflowFailException) or ti.try_number > (ti.max_tries or 0)


def _where(operator: ClusterOperator, context: Mapping[str, Any]) -> tuple[str, str, str, int]:
    ti = context["ti"]
    return (ti.dag_id, ti.run_id, operator.members.group_id, operator.members.map_index(context))


def _url(dag_id: str, run_id: str, group: str, map_index: int) -> str:
    """Absolute address of the report in Airflow's UI."""
    from mayfly.airflow.links import page

    base = urlsplit(conf.get("api", "base_url", fallback="") or "http://localhost:8080")
    return f"{base.scheme}://{base.netloc}" + page(
        "report", dag_id=dag_id, group=group, map_index=map_index, run_id=run_id
    )


def _states(dag_id: str, run_id: str, group: str) -> dict[str, Any]:
    """States of the group's tasks as Airflow gives them, empty where it cannot be asked."""

    def ask() -> dict[str, Any]:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        found = RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id], task_group_id=group)
        return dict(found.get(run_id, {}))

    return _quietly(ask) or {}


def _find_run(job: JobSpec, where: tuple[str, str, str, int]) -> Run | None:
    """What plan returned; without it the newest generation of this run, on whichever of the job's targets it is."""
    from airflow.sdk.bases.xcom import BaseXCom

    from mayfly.airflow.installation import installation_id
    from mayfly.contract import Identity
    from mayfly.project.loading import Project
    from mayfly.steps.lifecycle import Handle, Run, find_handle

    dag_id, run_id, group, index = where
    planned = _quietly(
        lambda: BaseXCom.get_one(
            key=BaseXCom.XCOM_RETURN_KEY, dag_id=dag_id, run_id=run_id, task_id=f"{group}.{names.PLAN}", map_index=index
        )
    )
    if planned:
        return Run.open(Handle.from_json(planned))
    identity = Identity(installation=installation_id(), dag_id=dag_id, run_id=run_id, group=group, map_index=index)
    project = Project(job.folder.parent.parent)
    for name in job.targets:
        try:
            handle = find_handle(job=job.name, target=project.frozen_target(name), identity=identity)
        except MayflyError as error:
            log.warning("Target %s cannot be asked: %s", name, error)
            continue
        if handle is not None:
            return Run.open(handle)
    return None


def _quietly(ask: Callable[[], Any]) -> Any:
    """Its answer, None when there is none: telling must never be what fails."""
    try:
        return ask()
    except Exception as error:
        log.warning("While telling how the run ended: %s: %s", type(error).__name__, error)
        return None
