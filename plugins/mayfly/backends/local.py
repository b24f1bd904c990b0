"""Clusters on this machine: plain processes and a folder of entries.

A local cluster is an *entry* (a JSON file under a lock) and whatever processes were started under its name. The entry
of a deleted cluster stays as a tombstone: names are never used twice, so a create call that arrives late, from a task
whose process outlived its supervisor, is refused instead of leaking (`settle_seconds` is 0 for that reason).

A process belongs to a cluster when its environment carries `MAYFLY_CLUSTER=<name>`, when it descends from one that
does, or when the driver has written it down (a daemon may have cleaned its environment and lost its parent).

Nothing on the disk keeps a process alive: what is ended is ended first, and written down after that.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

import psutil

from mayfly.backends.base import Capacity, ClusterView, JobView
from mayfly.backends.unpacking import unpacked_environment, whole_folder
from mayfly.backends.yarn_left import end_applications
from mayfly.contract import Failure, FrozenTarget, JobOrder, Plan, Timestamp, decode, encode
from mayfly.driver.tree import started
from mayfly.errors import BackendError, BackendUnavailable, ContractError, NotOurs, Refused
from mayfly.names import MANAGED_BY
from mayfly.staging.credentials import target_store
from mayfly.states import LOCAL, ClusterState, JobState
from mayfly.yarn.tags import tag_of

_END_SECONDS = 20.0
_TOMBSTONE_DAYS = 60.0
_MEMORY_SHARE = 0.75


def state_folder() -> Path:
    """Where Mayfly keeps what belongs to this machine: MAYFLY_STATE_DIR, else the user's XDG state folder."""
    given = os.environ.get("MAYFLY_STATE_DIR")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "mayfly"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cluster as this machine knows it; `state` is a key of `states.LOCAL`."""

    name: str
    owner: str
    state: str
    host: str
    created_at: Timestamp
    labels: Mapping[str, str] = field(default_factory=dict)
    checked: str = ""
    """What delete has found gone beside processes, for the receipt."""


@dataclass(frozen=True, kw_only=True)
class DriverProcess:
    """The driver of one attempt. A pid is only that process while its start matches (pids are used again), see
    `driver.tree.started`."""

    pid: int
    started: float


_GONE = DriverProcess(pid=0, started=0.0)
"""One of which nothing is known but that it was started; no process of ours has this number."""


class LocalBackend:
    """Implements `ClusterBackend`; what writes takes the entry's lock, so two actors never interleave within one."""

    settle_seconds = 0.0
    quiet_seconds = 0.0
    lock_seconds = 30.0
    """How long a verb waits for another's; each has its deadline, so only a process that is stopped holds on longer."""

    def __init__(self, target: FrozenTarget) -> None:
        self.target = target
        self.root = Path(str(target.options.get("state_dir") or state_folder())) / "clusters"

    # -- verbs

    def capacity(self) -> Capacity:
        """This machine's cores (those we may use) and three quarters of its memory (or of our control group's)."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        memory = psutil.virtual_memory().total
        with contextlib.suppress(OSError, ValueError):
            memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
        with contextlib.suppress(OSError, ValueError):
            quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
            cores = min(cores, max(1, int(quota) // int(period)))
        return Capacity(cores=cores, memory=int(memory * _MEMORY_SHARE))

    def create(self, plan: Plan) -> ClusterView:
        """Write the entry. Idempotent by name and owner: ours is adopted, a tombstone or another's is refused."""
        self._prune()
        with self._locked(plan.name):
            entry = self._entry(plan.name)
            if entry is None:
                entry = Entry(
                    name=plan.name,
                    owner=plan.owner,
                    state="RUNNING",
                    host=platform.node(),
                    created_at=Timestamp(time.time()),
                    labels=plan.labels,
                )
                self._save(entry)
            elif entry.state == "DAMAGED":
                raise Refused(f"cluster {plan.name}: {entry.checked}. To run again, clear the whole group")
            elif entry.owner != plan.owner:
                raise NotOurs(f"cluster {plan.name} exists and belongs to another owner ({entry.owner}); left alone")
            elif entry.state != "RUNNING":
                raise Refused(f"cluster {plan.name} is {entry.state.lower()}; a deleted name is never created again")
            return self._view(entry)

    def describe(self, name: str) -> ClusterView:
        entry = self._entry(name)
        return self._view(entry) if entry else ClusterView(name=name, state=ClusterState.ABSENT, detail="no entry")

    def submit(self, order: JobOrder, *, rundir: str) -> None:
        """Start the driver, detached. Idempotent: an attempt whose driver was started here is not started again.

        Unpacking may take long, and the store may hang: nobody who wants to delete waits for that.
        """
        if self._submitted(order):
            return
        code, interpreter = self._unpack(order), self._interpreter(order)
        with self._locked(order.cluster):
            try:
                if self._submitted(order):
                    return
            except Refused:  # deleted meanwhile: then nothing but a tombstone is to be left
                shutil.rmtree(code.parent, ignore_errors=True)
                raise
            scratch = self._scratch(order)
            try:
                scratch.mkdir(parents=True, exist_ok=True)
                driver = self._spawn(order, rundir=rundir, code=code, scratch=scratch, interpreter=interpreter)
            except (OSError, subprocess.SubprocessError) as error:
                raise BackendUnavailable(f"cannot start the driver of job {order.job} in {scratch}: {error}") from error
            _write(scratch / "driver.json", encode(driver))

    def poll(self, order: JobOrder) -> JobView:
        self._require_here(order.cluster)
        driver = self._driver(order)
        if driver is None:
            return JobView(state=JobState.NEVER_STARTED)
        if _alive(driver):
            return JobView(state=JobState.RUNNING, detail=f"pid {driver.pid}")
        said = ""
        with contextlib.suppress(OSError):
            said = (self._scratch(order) / "driver.out").read_text(errors="replace")[-2000:].strip()
        return JobView(state=JobState.ENDED, detail=said or f"pid {driver.pid} is gone")

    def cancel(self, order: JobOrder) -> None:
        self._require_here(order.cluster)
        driver = self._driver(order)
        if driver is not None and _alive(driver):
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(driver.pid).terminate()

    def delete(self, name: str, *, owner: str) -> ClusterView:
        """End every process of the cluster and leave a tombstone. Idempotent in any state, also without an entry.

        A disk that takes no tombstone and a lock that somebody holds are BackendUnavailable *after* a first round.
        """
        self._to_delete(name, owner=owner)
        for process in self._processes(name):
            with contextlib.suppress(psutil.Error):
                process.kill()
        with self._locked(name):
            known = self._to_delete(name, owner=owner)
            entry = known if known.state == "DELETED" else replace(known, state="DELETING")
            if entry != known:
                with contextlib.suppress(BackendUnavailable):  # the tombstone cannot be written either, and says so
                    self._save(entry)
            left = self._end_processes(name)
            if left:
                pids = ", ".join(f"{process.pid}" for process in left)
                return replace(self._view(entry), state=ClusterState.DELETING, detail=f"still alive: pid {pids}")
            if entry.state == "DELETING" and self._asks_yarn(name):
                if applications := end_applications(name, owner=owner):
                    detail = f"still there: {', '.join(applications)}"
                    return replace(self._view(entry), state=ClusterState.DELETING, detail=detail)
                entry = replace(entry, checked=f"no YARN application tagged {tag_of(name)} is left")
            entry = replace(entry, state="DELETED")
            if entry != known:
                self._save(entry)
            for item in self._folder(name).iterdir():
                if item.is_dir():
                    shutil.rmtree(item, ignore_errors=True)
            return self._view(entry)

    def explain(self, name: str) -> Failure | None:
        """An entry never fails to start."""
        return None

    def tidy(self, plan: Plan) -> None:
        """Nothing is shared."""

    def find(self, labels: Mapping[str, str]) -> list[ClusterView]:
        try:
            names = sorted(folder.name for folder in self.root.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise BackendUnavailable(f"cannot read the state folder {self.root}: {error}") from error
        views = []
        for name in names:
            entry = self._entry(name)
            if entry and all(entry.labels.get(key) == value for key, value in labels.items()):
                view = self._view(entry)
                if view.state is not ClusterState.ABSENT:
                    views.append(view)
        return views

    def _asks_yarn(self, name: str) -> bool:
        """Whether a driver of this cluster may have started something on YARN."""
        return self.target.launcher == "yarn" and (self._folder(name) / "jobs").is_dir()

    # -- entries

    def _folder(self, name: str) -> Path:
        return self.root / name

    def _scratch(self, order: JobOrder) -> Path:
        return self._folder(order.cluster) / "jobs" / order.job / str(order.attempt)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        folder = self._folder(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "lock").open("w")
        except OSError as error:
            raise BackendUnavailable(f"cannot write the state folder {folder}: {error}") from error
        with lock:
            # Not inherited by the driver (close_fds) and released by the kernel when its holder dies.
            until = time.monotonic() + self.lock_seconds
            while not _lock_now(lock):
                if time.monotonic() > until:
                    raise BackendUnavailable(
                        f"cluster {name}: somebody has held {folder / 'lock'} for {self.lock_seconds:.0f} s; a "
                        "process that was stopped there must go on or end"
                    )
                time.sleep(0.02)
            yield

    def _entry(self, name: str) -> Entry | None:
        """What is written down of a cluster. A damaged entry (the machine went down in mid-write) is one of which only
        the name is known: it is there, and it hides no other."""
        path = self._folder(name) / "entry.json"
        try:
            data, since = path.read_bytes(), path.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BackendUnavailable(f"cannot read {path}: {error}") from error
        try:
            entry = decode(Entry, data, where=str(path))
            if entry.state in LOCAL:
                return entry
            problem = f"{path}: state {entry.state!r} is none of {sorted(LOCAL)}"
        except ContractError as error:
            problem = str(error)
        return Entry(
            name=name,
            owner="",
            state="DAMAGED",
            host=platform.node(),
            created_at=Timestamp(since),
            labels=MANAGED_BY,
            checked=problem,
        )

    def _to_delete(self, name: str, *, owner: str) -> Entry:
        """The entry to be ended, made up where there is none. NotOurs, or BackendUnavailable on another host."""
        entry = self._entry(name)
        if entry is None:
            now = Timestamp(time.time())
            return Entry(name=name, owner=owner, state="DELETING", host=platform.node(), created_at=now)
        if entry.state == "DAMAGED":  # whose it is its processes say, else nobody: then it is who knows the name
            theirs = next((found for found in _owners(name) if found != owner), owner)
            entry = replace(entry, owner=theirs, labels={**entry.labels, "owner": theirs}, checked="")
        if entry.owner != owner:
            raise NotOurs(f"cluster {name} belongs to another owner ({entry.owner}); left alone")
        self._check_host(entry)
        return entry

    def _save(self, entry: Entry) -> None:
        _write(self._folder(entry.name) / "entry.json", encode(entry))

    def _view(self, entry: Entry) -> ClusterView:
        return ClusterView(
            name=entry.name,
            state=LOCAL[entry.state],
            labels=entry.labels,
            created_at=entry.created_at,
            detail="; ".join(filter(None, [f"{entry.state.lower()} on {entry.host}", entry.checked])),
        )

    def _require_here(self, name: str) -> None:
        """BackendUnavailable where the cluster's processes cannot be seen: a living driver would be taken for dead."""
        entry = self._entry(name)
        if entry is not None:
            self._check_host(entry)

    def _check_host(self, entry: Entry) -> None:
        if entry.host != platform.node():
            raise BackendUnavailable(
                f"cluster {entry.name} was made on host {entry.host!r}, this is {platform.node()!r}: a local cluster "
                f"can be looked after only where it runs. Run this on {entry.host!r}"
            )

    def _prune(self) -> None:
        """Forget tombstones that are older than any task could be."""
        if not self.root.is_dir():
            return
        for folder in self.root.iterdir():
            path = folder / "entry.json"
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _TOMBSTONE_DAYS * 86400:
                    entry = self._entry(folder.name)
                    if entry and entry.state == "DELETED":
                        shutil.rmtree(folder, ignore_errors=True)

    # -- processes

    def _submitted(self, order: JobOrder) -> bool:
        """Whether this attempt's driver was started here. Refused when it may not be."""
        entry = self._entry(order.cluster)
        if entry is None or entry.state != "RUNNING":
            raise Refused(f"cluster {order.cluster} is not running here; job {order.job} was not started")
        self._check_host(entry)
        return self._driver(order) is not None

    def _unpack(self, order: JobOrder) -> Path:
        """The code archive of this order as a folder; whole or not at all."""

        def fill(folder: Path) -> None:
            data = target_store(self.target).get(order.code)
            if data is None:
                raise BackendError(
                    f"the code archive {self.target.staging}/{order.code} is missing; clear the run to plan anew"
                )
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive.extractall(folder)

        return whole_folder(self._folder(order.cluster) / "code" / Path(order.code).stem, fill)

    def _interpreter(self, order: JobOrder) -> Path | None:
        """Of the job's environment, unpacked once a machine; None when the job has none."""
        if order.environment is None:
            return None
        store = target_store(self.target)
        folder = unpacked_environment(order.environment, store=store, root=self.root.with_name("envs"))
        return folder / "bin" / "python3"

    def _spawn(
        self, order: JobOrder, *, rundir: str, code: Path, scratch: Path, interpreter: Path | None
    ) -> DriverProcess:
        """Start the driver as a child of init and the leader of nothing we hold: it survives whoever asked for it."""
        # A job has no business with the orchestrator's configuration, which holds its secrets.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "_AIRFLOW"))}
        environment |= {
            "PYTHONPATH": str(code / "lib"),
            "PYTHONUNBUFFERED": "1",
            "MAYFLY_CODE_DIR": str(code),
            "MAYFLY_CLUSTER": order.cluster,
            "MAYFLY_OWNER": order.owner,
            "MAYFLY_PROCESSES_FILE": str(scratch / "processes.json"),
        }
        if interpreter is not None:
            # Nothing of this machine's Python may get in, and what the script starts as `python` is this one.
            environment.pop("PYTHONHOME", None)
            environment["PYTHONNOUSERSITE"] = "1"
            environment["PATH"] = f"{interpreter.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
        python = str(interpreter or self.target.python or sys.executable)
        command = [python, "-m", "mayfly.driver", rundir, order.job, str(order.attempt)]
        with (scratch / "driver.out").open("ab") as out:
            # The shell ends at once, so that the driver is nobody's child: no task process can take it down or has to
            # reap it. Arguments are passed, never pasted.
            shell = subprocess.run(
                ["/bin/sh", "-c", 'out=$1; shift; "$@" >>"$out" 2>&1 </dev/null & echo $!', "sh", out.name, *command],
                env=environment,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=out,
                start_new_session=True,
                timeout=30,
                check=True,
            )
        pid = int(shell.stdout)
        try:
            return DriverProcess(pid=pid, started=started(psutil.Process(pid)))
        except psutil.NoSuchProcess:
            return DriverProcess(pid=pid, started=0.0)

    def _driver(self, order: JobOrder) -> DriverProcess | None:
        """The driver that was started for this attempt, dead or alive; None when none ever was."""
        path = self._scratch(order) / "driver.json"
        unnoted: DriverProcess | None = None
        try:
            return decode(DriverProcess, path.read_bytes(), where=str(path))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise BackendUnavailable(f"cannot read {path}: {error}") from error
        except ContractError:
            unnoted = _GONE  # it is written when the driver has been started
        # Whoever started it may have died before writing it down.
        tail = [order.job, str(order.attempt)]
        for process in _marked(order.cluster):
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if "mayfly.driver" in line and line[-2:] == tail:
                    return DriverProcess(pid=process.pid, started=started(process))
        return unnoted

    def _end_processes(self, name: str) -> list[psutil.Process]:
        """SIGKILL all of the cluster's processes until two looks in a row find none; returns what is left in time."""
        deadline = time.monotonic() + _END_SECONDS
        clean_looks = 0
        while True:
            found = self._processes(name)
            clean_looks = 0 if found else clean_looks + 1
            if clean_looks == 2 or time.monotonic() > deadline:
                return found
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if found:
                psutil.wait_procs(found, timeout=1.0)
            time.sleep(0.02)

    def _processes(self, name: str) -> list[psutil.Process]:
        known: dict[int, psutil.Process] = {process.pid: process for process in _marked(name)}
        for path in self._folder(name).glob("jobs/*/*/processes.json"):
            with contextlib.suppress(OSError, ValueError, TypeError, psutil.Error):
                for pid, since in json.loads(path.read_text()):
                    if _alive(DriverProcess(pid=pid, started=since)):
                        known[pid] = psutil.Process(pid)
        for process in list(known.values()):
            with contextlib.suppress(psutil.Error):
                known |= {child.pid: child for child in process.children(recursive=True)}
        known.pop(os.getpid(), None)
        return [process for process in known.values() if _running(process)]


def _marked(name: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("MAYFLY_CLUSTER") == name and _running(process):
                found.append(process)
    return found


def _owners(name: str) -> set[str]:
    """Nonces that processes of this cluster carry."""
    found = set()
    for process in _marked(name):
        with contextlib.suppress(psutil.Error, OSError):
            found.add(process.environ().get("MAYFLY_OWNER", ""))
    return found - {""}


def _running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _alive(driver: DriverProcess) -> bool:
    try:
        process = psutil.Process(driver.pid)
        return started(process) == driver.started and _running(process)
    except psutil.Error:
        return False


def _lock_now(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BackendUnavailable(f"cannot lock {lock.name}: {error}") from error
    return True


def _write(path: Path, data: bytes) -> None:
    """Whole, and on the disk before it takes its place: a machine that goes down leaves no half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise BackendUnavailable(f"cannot write {path}: {error}") from error
