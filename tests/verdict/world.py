"""One live Airflow, a case that happens in it, and what was seen of that case in the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil

from mayfly.airflow.standalone import Stack
from mayfly.backends.local import LocalBackend
from mayfly.contract import Plan
from mayfly.staging.rundir import RunDir
from mayfly.staging.stores import FileStore, Store
from mayfly.states import ClusterState
from tests.lifecycle.airflow_api import ACTIVE, Api, Run
from tests.processes import end, free_port, of_cluster
from tests.verdict.cloud import Cloud

ROOT = Path(__file__).resolve().parent.parent.parent
LIVE = ROOT / "tests" / "lifecycle"
GONE_SECONDS = 120.0
LOOK_SECONDS = 2.0
PARTS = ("api-server", "scheduler", "dag-processor")
QUIET_SECONDS = 40.0
SETTINGS = {
    # A killed supervisor is noticed after 45 s, not after five minutes.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__CORE__PARALLELISM": "5",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
    # On a slow machine a DAG file takes its time, too.
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "240",
    "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "300",
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How a case ended. `ran`: scripts begun/ended; `left`: clusters + processes; `receipts`: of clusters made."""

    colour: str
    ran: str
    left: int
    receipts: str

    def __str__(self) -> str:
        return f"{self.colour} · {self.ran} · {self.left} · {self.receipts}"


def make_stack(folder: Path, cloud: Cloud | None = None) -> Stack:
    project = folder / "project"
    plugins = folder / "plugins"
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(LIVE / "project", project, ignore=left_out)
    shutil.copytree(ROOT / "plugins", plugins, ignore=left_out)  # so that nobody's edit comes in between
    shutil.copytree(ROOT / "init_actions", folder / "init_actions")
    return Stack(
        home=folder / "airflow", project=project, port=free_port(), plugins=plugins,
        settings={
            **SETTINGS,
            "PYTHONPATH": os.pathsep.join([str(plugins), str(LIVE)]),
            "MAYFLY_STATE_DIR": str(folder / "state"),
            "MAYFLY_INSTALLATION": "verdict",
            **(cloud.env if cloud else {}),
        },
    )  # fmt: skip


class SerialApi(Api):
    """One write at a time: with several, 3.3's api-server waits for its own lock on SQLite until the time limit."""

    def __init__(self, stack: Stack) -> None:
        self._writing = threading.Lock()
        super().__init__(stack)

    def call(self, method: str, path: str, body: object = None) -> Any:
        if method == "GET":
            return super().call(method, path, body)
        with self._writing:
            return super().call(method, path, body)


@dataclass
class World:
    stack: Stack
    api: Api
    cloud: Cloud | None = None
    patience: float = 600.0
    """Seconds for any wait; only turns a hang into a failure."""
    over: threading.Event = field(default_factory=threading.Event)
    """Nothing is worth waiting for any more."""
    hands: list[subprocess.Popen[Any]] = field(default_factory=list)

    @property
    def stores(self) -> list[Store]:
        """Staging of all targets."""
        here: list[Store] = [FileStore(self.stack.project / ".mayfly" / "staging")]
        return here + ([self.cloud.store] if self.cloud else [])

    @property
    def signals(self) -> Path:
        return self.stack.project / "data" / "signals"

    def until(self, condition: Callable[[], Any], what: str | Callable[[], str]) -> Any:
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline and not self.over.is_set():
            try:
                if found := condition():
                    return found
            # A loaded Airflow, or one that is being started again; a process that has ended while it was looked at.
            except (OSError, HTTPException, psutil.Error):
                pass
            time.sleep(LOOK_SECONDS)
        raise AssertionError(f"{what if isinstance(what, str) else what()}: not within {self.patience:.0f} s")

    def mayfly(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The command line, as whoever is on call types it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "mayfly", *arguments],
            env={**self.stack.env, **environment},
            cwd=self.stack.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with self.hand(process):
            output, errors = process.communicate(timeout=self.patience)
        print(f"    $ mayfly {' '.join(arguments)} -> {process.returncode}\n{output}{errors}", end="", flush=True)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def plans(self) -> list[tuple[RunDir, Plan]]:
        names = ((store, sorted({path.split("/")[1] for path in store.list("runs/")})) for store in self.stores)
        dirs = (RunDir(store, name) for store, found in names for name in found)
        return [(rundir, plan) for rundir in dirs if (plan := rundir.plan())]

    def processes(self, name: str) -> list[psutil.Process]:
        return of_cluster(name)

    @contextmanager
    def hand(self, process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
        """A process in a session of its own that a row waits for; it ends with the row, and with the world."""
        self.hands.append(process)
        try:
            yield process
        finally:
            self._end(process)
            process.wait()
            self.hands.remove(process)

    def stop(self) -> None:
        """Whoever waits waits no more."""
        self.over.set()
        for process in list(self.hands):
            self._end(process)

    @staticmethod
    def _end(process: subprocess.Popen[Any]) -> None:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def end_all(self) -> None:
        self.stack.stop()
        for rundir, _ in self.plans():
            for process in self.processes(rundir.name):
                end(process)


@dataclass
class Case:
    """One row while it happens: the run, and hands to do something to it."""

    world: World
    run: Run = field(init=False)
    dag_id: str = ""
    remark: str = ""
    cut: int = 0
    """Scripts begun before the thing that this row is about."""

    def trigger(self, dag_id: str = "plain", **conf: object) -> Case:
        self.dag_id = dag_id
        api = self.world.api
        self.world.until(lambda: api.call("GET", f"/api/v2/dags/{dag_id}"), f"DAG {dag_id}")
        made = self.world.until(
            lambda: api.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf}),
            f"a run of {dag_id}",
        )
        self.run = Run(api, dag_id, made["dag_run_id"])
        return self

    # -- looking

    def generations(self) -> list[tuple[RunDir, Plan]]:
        mine = [item for item in self.world.plans() if item[1].identity.dag_id == self.dag_id]
        if hasattr(self, "run"):
            mine = [item for item in mine if item[1].identity.run_id == self.run.run_id]
        return sorted(mine, key=lambda item: (item[1].identity.map_index, item[1].generation))

    def name(self) -> str:
        """Of the newest cluster."""
        self.world.until(self.generations, f"a plan of {self.dag_id}")
        return self.generations()[-1][0].name

    def dir(self) -> RunDir:
        self.name()
        return self.generations()[-1][0]

    def marks(self, kind: str) -> int:
        folder = self.world.stack.project / "data" / "marks"
        return sum(len(list((folder / rundir.name).glob(f"{kind}-*"))) for rundir, _ in self.generations())

    def end(self) -> str:
        """The run's final state. A run that was marked has its state at once; its teardowns still run."""
        since = time.monotonic()
        last = "never seen"

        def look() -> str:
            nonlocal since, last
            state, tasks = self.run.look()
            last = f"{state}: {tasks}"
            if state not in ("success", "failed") or any(task in ACTIVE for task in tasks.values()):
                since = time.monotonic()
                return ""
            # A task that has no state yet is about to be scheduled, or never will be.
            quiet = QUIET_SECONDS if None in tasks.values() else LOOK_SECONDS
            return state if time.monotonic() - since > quiet else ""

        return str(self.world.until(look, lambda: f"the end of {self.dag_id} {self.run.run_id} ({last})"))

    def story(self) -> str:
        """What its tasks said last, for whoever asks why a row did not end as it should."""
        parts = []
        for task in ("create_cluster", "run_job", "delete_cluster", "report"):
            with suppress(OSError, HTTPException, AttributeError):
                parts.append(f"--- {task}\n{self.run.log(task, self.run.tries(task))[-1500:]}")
        return "\n".join(parts)

    def seen(self, colour: str = "") -> Seen:
        word = {"success": "green", "failed": "red"}
        colour = word[colour or self.end()]
        made = [(rundir, plan) for rundir, plan in self.generations() if rundir.calls()]
        return Seen(
            colour=colour,
            ran=f"{self.marks('began')}/{self.marks('ended')}",
            left=self.clusters_left() + self.processes_left(),
            receipts=f"{sum(rundir.receipt() is not None for rundir, _ in made)}/{len(made)}",
        )

    def clusters_left(self) -> int:
        return sum(self.is_left(rundir.name, plan) for rundir, plan in self.generations())

    def is_left(self, name: str, plan: Plan) -> bool:
        if plan.target.backend == "dataproc":
            assert self.world.cloud is not None
            return name in self.world.cloud.clusters()
        return self.backend(plan).describe(name).state is not ClusterState.ABSENT

    def backend(self, plan: Plan) -> LocalBackend:
        """Without the failure that the target's own has."""
        state = self.world.stack.env["MAYFLY_STATE_DIR"]
        return LocalBackend(replace(plan.target, options={"state_dir": state}))

    def processes_left(self) -> int:
        deadline = time.monotonic() + GONE_SECONDS
        while True:
            left = [process for rundir, _ in self.generations() for process in self.world.processes(rundir.name)]
            if not left or time.monotonic() > deadline:
                return len(left)
            time.sleep(1.0)

    def task(self, task: str) -> str | None:
        return self.run.tasks().get(task)

    # -- waiting for a moment

    def in_job(self) -> Case:
        self.world.until(lambda: self.marks("began") > self.cut, f"{self.dag_id}: the script's begin")
        # ... and until run_job has looked once more, so that it is really waiting.
        self.world.until(lambda: self.dir().attempt(self.dir().jobs()[0], 1).lease(), "a lease")
        return self

    def at_rest(self, task: str = "cluster.run_job") -> Case:
        """Until the task has just gone to wait for its next look."""
        short = task.rsplit(".", 1)[-1]
        self.world.until(lambda: self.task(short) != "up_for_reschedule", f"{task} looking")
        self.world.until(lambda: self.task(short) == "up_for_reschedule", f"{task} waiting")
        return self

    def at(self, what: str) -> Path:
        """Until the backend says that it is there."""
        path = self.world.signals / f"{what}-{self.name()}"
        self.world.until(path.exists, path.name)
        return path

    def process(self, part: str) -> psutil.Process:
        """The process of this cluster whose command line holds `part`."""

        def look() -> psutil.Process | None:
            found = [one for one in self.world.processes(self.name()) if part in " ".join(one.cmdline())]
            return found[0] if found else None

        found: psutil.Process = self.world.until(look, f"a process {part!r} of {self.name()}")
        return found

    # -- doing

    def go(self) -> Case:
        """Lets the jobs of all its clusters end."""
        for rundir, _ in self.generations():
            (self.world.stack.project / "data" / "marks" / f"go-{rundir.name}").touch()
        return self

    def allow(self, what: str) -> Case:
        (self.world.signals / f"{what}-{self.name()}").touch()
        return self

    def ask(self, method: str, path: str, body: object) -> Any:
        """Ask Airflow, again when it gave no answer: a user would press the button again, too."""

        def once() -> list[Any]:
            try:
                return [self.run.api.call(method, path, body)]
            except HTTPError as error:
                if error.code < 500:
                    raise AssertionError(f"{method} {path}: {error.read().decode()}") from None
                raise

        return self.world.until(once, f"{method} {path}")[0]

    def mark(self, state: str) -> Case:
        self.ask("PATCH", self.run.path, {"state": state})
        self.run.marked = state
        return self

    def mark_task(self, task: str, state: str) -> Case:
        self.ask("PATCH", f"{self.run.path}/taskInstances/{task}", {"new_state": state})
        return self

    def done(self) -> Case:
        """A whole run before the thing that this row is about."""
        self.end()
        self.cut = self.marks("began")
        return self

    def clear(self, *tasks: str | tuple[str, int], downstream: bool = False) -> Case:
        cleared = self.world.until(lambda: self.run.clear_tasks(*tasks, downstream=downstream), f"a clear of {tasks}")
        self.remark = f"cleared: {' '.join(cleared)}"
        return self

    def clear_run(self, *, only_failed: bool = False) -> Case:
        self.run.marked = ""
        self.ask("POST", f"{self.run.path}/clear", {"dry_run": False, "only_failed": only_failed})
        time.sleep(LOOK_SECONDS)
        return self

    def pause(self, paused: bool) -> Case:
        self.ask("PATCH", f"/api/v2/dags/{self.dag_id}", {"is_paused": paused})
        return self


def interrupt(process: subprocess.Popen[Any]) -> None:
    """Ctrl-C in a terminal reaches its whole group."""
    os.killpg(process.pid, signal.SIGINT)
