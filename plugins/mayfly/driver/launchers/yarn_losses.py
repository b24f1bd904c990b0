"""Which lost worker YARN explains, and what that means for the tasks it ran.

Dask counts each unexpected loss against every task the worker was processing, and fails a task above
`distributed.scheduler.allowed-failures`. On YARN most losses are nobody's fault: preemption, a lost or decommissioned
node, the death of the application master. These are forgiven. Our rule is three *unexplained* losses of one task.

YARN's word comes some seconds after the loss. A task that would reach the limit by losses that are not explained yet
waits for it, so that a task that kills its workers does not kill ten of them meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import KilledWorker

from mayfly.driver.launchers.guarded import Guarded
from mayfly.yarn.exits import Cause, cause_of, said
from mayfly.yarn.facts import Container, Node, NodeState

logger = logging.getLogger(__name__)

UNEXPLAINED_DEATHS = 3
"""Of workers, with the same task running: then the task fails."""

DASK_SETTINGS = {"distributed.scheduler.allowed-failures": 1_000_000}
"""To be set in the host before the scheduler is made: Dask's own count shall not decide, ours does."""

SILENCE = 15.0
"""Seconds after which a container that YARN still believes in, and whose nanny says nothing, is out of reach. A process
that dies in it is told of by its nanny, a container that dies by YARN, both within a few seconds."""
SETTLE = 4.0
"""Seconds that the state of a node may come later than the end of its containers: a NodeManager that is shut down ends
them first."""
PATIENCE = 60.0
"""Seconds after which nobody will explain it any more."""
LOOK_SECONDS = 0.5
_HELD = "mayfly: held until its lost workers are explained"
_OVER = ("SUCCEEDED", "FAILED", "KILLED")
_NODES = {
    NodeState.LOST: Cause.NODE_LOST,
    NodeState.REBOOTED: Cause.NODE_LOST,
    NodeState.SHUTDOWN: Cause.NODE_LOST,
    NodeState.UNHEALTHY: Cause.DISKS,
    NodeState.DECOMMISSIONED: Cause.DECOMMISSIONED,
}
_CONTAINER = re.compile(r"container_(?:e\d+_)?(\d+_\d+)_\d+_\d+")


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One lost worker. `text` is what the log and the classification shall say of it."""

    worker: str
    """Its Dask name."""
    container: str
    node: str
    cause: Cause
    text: str


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What can be found out about YARN at one moment; None = could not be asked."""

    containers: tuple[Container, ...] | None
    nodes: tuple[Node, ...] | None
    ended: frozenset[str] = frozenset()
    """Applications that have ended, of those asked about."""


Look = Callable[[frozenset[str]], Awaitable[Seen]]
"""Gets the ids of the applications that are asked about."""


def container_in(text: str) -> str:
    """The id of the YARN container in a path, such as a worker's local directory; "" when there is none."""
    found = _CONTAINER.search(text)
    return found[0] if found else ""


def application_of(container: str) -> str:
    """The id of the application that a container belongs to."""
    found = _CONTAINER.search(container)
    return f"application_{found[1]}" if found else ""


def _tells(word: str) -> bool:
    """Whether a nanny's word settles it: YARN, too, ends a container by SIGTERM."""
    return bool(word) and not re.search(r"signal 15\b|SIGTERM", word)


def explain(container: str, seen: Seen, *, word: str, age: float) -> tuple[Cause, str] | None:
    """Why a worker was lost, and in whose words; None = not known yet. `word`: what its nanny said, `age`: seconds
    since the loss."""
    if _tells(word):
        return (Cause.MEMORY if "memory budget" in word else Cause.EXITED), word
    found = next((c for c in seen.containers or () if c.id == container), None)
    if found is not None and found.state in _OVER:
        cause = cause_of(found.message)
        if not cause.explained:
            cause = _NODES.get(_state_of(found, seen.nodes), cause)
        if cause is Cause.UNKNOWN and found.state == "KILLED":
            cause = Cause.ENDED_BY_US
        if cause is Cause.UNKNOWN and found.state == "SUCCEEDED":
            cause = Cause.EXITED
        if cause in (Cause.EXITED, Cause.KILLED, Cause.UNKNOWN) and age < SETTLE:
            return None
        return cause, said(found.message)
    if application_of(container) in seen.ended:
        return Cause.MASTER_DIED, f"{application_of(container)} has ended"
    if found is not None and (gone := _NODES.get(_state_of(found, seen.nodes))):
        return gone, f"{found.host} is {_state_of(found, seen.nodes)}"
    if age > SILENCE and found is not None:
        return Cause.NODE_LOST, f"{found.host or 'its node'} cannot be reached, although YARN says that it runs"
    if age > PATIENCE:
        return Cause.UNKNOWN, "neither YARN nor its nanny has said why"
    return None


def _state_of(container: Container, nodes: tuple[Node, ...] | None) -> NodeState:
    place = container.node.removeprefix("http://").removeprefix("https://")
    return next((node.state for node in nodes or () if node.http == place), NodeState.UNKNOWN)


@dataclass(kw_only=True, eq=False)
class _Lost:
    """A loss that is not explained yet, or that was not explained by YARN."""

    worker: str
    container: str
    host: str
    state: Any
    """Dask's WorkerState, for its error."""
    tasks: tuple[Any, ...]
    """TaskState of what it was processing."""
    at: float = field(default_factory=time.monotonic)
    word: str = ""
    decided: bool = False


class Losses(SchedulerPlugin):  # type: ignore[misc]
    """Watches the losses of a scheduler in this process. `tell` gets each loss once, when its cause is decided, but not
    those that we asked for ourselves.

    Use: `losses = Losses(scheduler, look=..., tell=...)`; `await losses.close()` at the end.
    """

    def __init__(self, scheduler: Any, *, look: Look, tell: Callable[[Loss], None]) -> None:
        self._scheduler, self._look, self._tell = scheduler, look, tell
        self._workers: dict[str, Any] = {}
        self._expected: set[str] = set()
        self._open: list[_Lost] = []
        self._against: dict[Any, list[_Lost]] = {}
        """By TaskState: losses that are not explained, or not yet."""
        self._held: dict[Any, tuple[Any, bool]] = {}
        """Tasks that wait, with the restrictions they had."""
        self._words: dict[str, tuple[float, str]] = {}
        self._task: asyncio.Task[None] | None = None
        for address in scheduler.workers:
            self.add_worker(scheduler, address)
        scheduler.add_plugin(self, name="mayfly-yarn-losses")

    def process_died(self, worker: str, how: str) -> None:
        """The nanny of this worker (Dask name) says how its process ended, or that it ends it for its memory."""
        if _tells(how) or worker not in self._words:
            self._words[worker] = (time.monotonic(), how)
        for lost in self._open:
            if lost.worker == worker and not _tells(lost.word):
                lost.word = how
        self._wake()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        with contextlib.suppress(ValueError, KeyError):
            self._scheduler.remove_plugin(name="mayfly-yarn-losses")

    # ------------------------------------------------------------ Dask's side

    def add_worker(self, scheduler: Any, worker: str) -> None:
        state = scheduler.workers[worker]
        self._workers[worker] = state
        container = container_in(state.local_directory or "")
        for lost in self._open:
            if container and lost.container == container and not _tells(lost.word):
                lost.word = "its process died and was started again in the same container"

    def restart(self, scheduler: Any) -> None:
        """`client.restart()` ends all workers, and Dask does not call that expected."""
        self._expected = set(scheduler.workers)

    def log_event(self, topic: str, msg: Any) -> None:
        """Called before the tasks of a lost worker are given to others."""
        if topic != "all" or not isinstance(msg, dict) or msg.get("action") != "remove-worker":
            return
        address = str(msg.get("worker"))
        state = self._workers.pop(address, None)
        expected = msg.get("expected", True) or address in self._expected or self._scheduler.status.name != "running"
        self._expected.discard(address)
        if state is None or expected:
            return
        tasks = tuple(filter(None, map(self._scheduler.tasks.get, msg.get("processing-tasks", ()))))
        name = str(state.name)
        at, word = self._words.pop(name, (0.0, ""))
        lost = _Lost(
            worker=name,
            container=container_in(state.local_directory or ""),
            host=state.host,
            state=state.clean(),
            tasks=tasks,
            word=word if time.monotonic() - at < 5 else "",
        )
        self._open.append(lost)
        for task in tasks:
            against = self._against.setdefault(task, [])
            against.append(lost)
            if len(against) >= UNEXPLAINED_DEATHS:
                self._hold(task)
        self._wake()

    # ------------------------------------------------------------ YARN's side

    def _wake(self) -> None:
        if self._open and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._decide())

    async def _decide(self) -> None:
        """Until every loss is decided, and every task with it."""
        guarded = Guarded(logger, "explaining lost workers")
        while self._open or self._held:
            with guarded:
                apps = frozenset(filter(None, (application_of(lost.container) for lost in self._open)))
                seen = await self._look(apps)
                for lost in list(self._open):
                    age = time.monotonic() - lost.at
                    if found := explain(lost.container, seen, word=lost.word, age=age):
                        self._open.remove(lost)
                        self._decided(lost, *found)
                self._judge()
            await asyncio.sleep(LOOK_SECONDS)
        self._against = {
            task: losses for task, losses in self._against.items() if self._scheduler.tasks.get(task.key) is task
        }

    def _decided(self, lost: _Lost, cause: Cause, words: str) -> None:
        lost.decided = True
        if cause.explained:
            for task in lost.tasks:
                self._against[task].remove(lost)
                task.suspicious = max(0, task.suspicious - 1)
                task.prefix.suspicious = max(0, task.prefix.suspicious - 1)
        if cause is Cause.ENDED_BY_US:
            return
        text = f"worker {lost.worker} was lost: {cause}" + (f" ({words})" if words else "")
        self._tell(Loss(worker=lost.worker, container=lost.container, node=lost.host, cause=cause, text=text))

    def _judge(self) -> None:
        """Let go, or fail, the tasks that wait."""
        for task in list(self._held):
            if self._scheduler.tasks.get(task.key) is not task:
                self._held.pop(task)
                continue
            against = self._against.get(task, [])
            if len(against) < UNEXPLAINED_DEATHS:
                self._let_go(task)
            elif sum(lost.decided for lost in against) >= UNEXPLAINED_DEATHS and task.state == "no-worker":
                self._fail(task, against[-1])

    def _hold(self, task: Any) -> None:
        """No worker has this name, so that Dask keeps the task until one can take it."""
        if task not in self._held:
            self._held[task] = (task.worker_restrictions, task.loose_restrictions)
            task.worker_restrictions, task.loose_restrictions = {_HELD}, False

    def _let_go(self, task: Any) -> None:
        task.worker_restrictions, task.loose_restrictions = self._held.pop(task)
        if task.state == "no-worker":
            self._scheduler.transitions({task.key: "processing"}, stimulus_id=f"mayfly-forgiven-{time.time()}")

    def _fail(self, task: Any, last: _Lost) -> None:
        task.worker_restrictions, task.loose_restrictions = self._held.pop(task)
        stimulus = f"mayfly-killed-workers-{time.time()}"
        error = KilledWorker(task=task.key, last_worker=last.state, allowed_failures=UNEXPLAINED_DEATHS - 1)
        more = self._scheduler.transition(
            task.key, "erred", exception=pickle.dumps(error), cause=task.key, stimulus_id=stimulus
        )
        self._scheduler.transitions(more, stimulus_id=stimulus)
        logger.error("Task %s failed: %d workers died while running it", task.key, UNEXPLAINED_DEATHS)
