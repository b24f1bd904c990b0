"""What all operators have in common: whose cluster it is, how to find it, and how to wait for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from mayfly.airflow import members as names
from mayfly.airflow.members import Members
from mayfly.airflow.waiting import wait
from mayfly.errors import MayflyError, Refused

if TYPE_CHECKING:
    from mayfly.contract import FrozenTarget, Identity, Timing
    from mayfly.project.loading import Project
    from mayfly.spec.job import JobSpec
    from mayfly.steps.lifecycle import Handle, Run
    from mayfly.steps.poke import Poll

log = logging.getLogger("airflow.task.mayfly")


class ClusterOperator(BaseOperator):
    """Common to all six: whose cluster it is, and how to find it."""

    template_fields: Sequence[str] = ("target",)
    ui_color = "#f3e7c9"

    def __init__(self, *, job: JobSpec, target: str, members: Members, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.target = target
        self.members = members
        self.pages: dict[str, str] = {}
        """Addresses outside Airflow, see `links`."""

    def identity(self, context: Mapping[str, Any]) -> Identity:
        from mayfly.airflow.installation import installation_id
        from mayfly.contract import Identity

        ti = context["ti"]
        return Identity(
            installation=installation_id(),
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            group=self.members.group_id,
            map_index=self.members.map_index(context),
        )

    def frozen_target(self) -> FrozenTarget:
        return self.project().frozen_target(self.target)

    def project(self) -> Project:
        """Where the job was read: the current folder of a task is anything."""
        from mayfly.project.loading import Project

        return Project(self.job.folder.parent.parent)

    def handle(self, context: Mapping[str, Any]) -> Handle:
        """What plan returned. Without it (a clear removes it) the latest generation that was planned.

        Refused when there is none: then nothing can be proven.
        """
        from mayfly.steps.lifecycle import Handle, find_handle

        ti = context["ti"]
        index = self.members.map_index(context)
        returned = ti.xcom_pull(task_ids=self.members.task_id(names.PLAN), map_indexes=index)
        if returned:
            return Handle.from_json(returned)
        found = find_handle(job=self.job.name, target=self.frozen_target(), identity=self.identity(context))
        if found is None:
            raise Refused(
                "no plan of this run is left, neither as the result of the plan task nor in the staging store of "
                f"target {self.target!r}: cannot prove deletion. Look for its cluster with `mayfly ls`, end it with "
                f"`mayfly reap`. {self.members.advice()}"
            )
        return found

    def wait(
        self,
        context: Mapping[str, Any],
        poke: Callable[[Run], Poll],
        *,
        patience: float,
        waited: float = 0.0,
        defer: Callable[[Run], None] = lambda run: None,
        ending: bool = False,
    ) -> Any:
        """Open the run and poke it until done. `patience` and `waited` in seconds, `defer`: see `waiting.wait`;
        `ending`: see `Run.open`."""
        from mayfly.steps.lifecycle import Run

        opened: list[Run] = []

        def step() -> Poll:
            if not opened:
                opened.append(Run.open(self.handle(context), ending=ending))
            return poke(opened[0])

        def timing() -> Timing | None:
            return opened[0].plan.target.timing if opened else None

        try:
            return wait(context, step, timing=timing, patience=patience, waited=waited, defer=lambda: defer(opened[0]))
        finally:
            if opened:
                self._note_pages(opened[0])

    def _note_pages(self, run: Run) -> None:
        """For the buttons that lead out of Airflow, which asks for their addresses when a poke's process has done."""
        from mayfly.steps.webpages import pages_of

        try:
            self.pages = pages_of(run, getattr(self, "name", None))
        except MayflyError as error:
            log.debug("no links: %s", error)

    def by(self, context: Mapping[str, Any]) -> str:
        """Who writes, for the files of the run directory. Without the process id: each poke is another process."""
        ti = context["ti"]
        return f"airflow {ti.task_id} try {ti.try_number}"
