"""The supervisor: owns the run directory's attempt, the limits, the signals and the record.

It imports neither Dask nor user code. Two children do the work, and each may die in any way: the *host* (scheduler,
launcher, sampler) and the *script*. Whatever happens, the end is the same path: end the script, collect, stop the
host, end all descendants, write the record.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mayfly.classify import Facts, classify
from mayfly.contract import (
    FailureClass,
    JobOrder,
    Outcome,
    Phase,
    Record,
    Timestamp,
    encode,
)
from mayfly.driver import environment, tree
from mayfly.driver.evidence import CpuMeter, Evidence, oom_kills
from mayfly.driver.logbook import SEGMENT_BYTES, Logbook
from mayfly.driver.loop import Lines, Loop, reap_orphans
from mayfly.driver.orchestrator import Orchestrator
from mayfly.driver.watch import StallWatch
from mayfly.driver.writer import Write, Writer
from mayfly.errors import MayflyError
from mayfly.rundir import AttemptDir, RunDir, open_store

NO_TASKS = (
    "no task ran on the cluster {when}: all work is done by the script alone, and the workers idle. Say "
    "`from dask.distributed import Client; client = Client()` before the first `.compute()`, and drop "
    '`scheduler="threads"`'
)


class Ended(Exception):
    """The attempt is over. `by` is one of `classify.Facts.ended_by`."""

    def __init__(self, by: str, detail: str = "", *, limit: float = 0, kind: str = "") -> None:
        self.by, self.detail, self.limit, self.kind = by, detail, limit, kind
        super().__init__(detail)


class Supervisor:
    """One attempt of one job, from `run()` to its record."""

    def __init__(self, attempt: AttemptDir, order: JobOrder) -> None:
        self.attempt, self.order = attempt, order
        self.started_at = Timestamp(time.time())
        self.phase = Phase.PREPARE
        self.phases: dict[str, float] = {}
        self._phase_since = time.monotonic()
        self.scratch = Path(tempfile.mkdtemp(prefix=f"{order.job}-{order.attempt}-", dir=Path.cwd()))
        self.evidence = Evidence()
        self.writer = Writer(attempt.store)
        self.log = Logbook(
            spool=self.scratch / "log",
            put=self._put_segment,
            room=self.writer.room,
            segment_seconds=order.timing.segment,
        )
        self.loop = Loop()
        self.notes: list[str] = []
        self.versions: dict[str, str] = {}
        self.host: subprocess.Popen[bytes] | None = None
        self.script: subprocess.Popen[bytes] | None = None
        self.answers: dict[str, dict[str, Any]] = {}
        self._control: socket.socket | None = None
        self._meter, self._stall_meter = CpuMeter(), CpuMeter()
        self._stall = StallWatch(limit=order.limits.stall)
        self._next_tick = self._next_look = 0.0
        self._metrics = bytearray()
        self._metrics_number = 0
        self._metrics_at = time.monotonic()
        self._told_no_tasks = False
        self._dumped = 0
        self._oom_before = oom_kills()

    # ------------------------------------------------------------ the path

    def run(self) -> int:
        """0 = the job succeeded, 1 = it did not, 3 = the record could not be written."""
        try:
            self._prepare()
            self._start_dask()
            self._preflight()
            self._run_script()
            end = Ended("script")
        except Ended as ended:
            end = ended
        except Exception as error:
            self.log.say(f"the driver failed: {error!r}")
            end = Ended("start", f"the driver failed: {error!r}")
        ended_in = self.phase
        facts = self._end(end, ended_in)
        return self._write_record(end, facts)

    def _prepare(self) -> None:
        self.orchestrator = Orchestrator(
            self.attempt,
            ttl=self.order.lease_ttl,
            interval=min(15.0, max(self.order.timing.status / 2, self.order.lease_ttl / 10)),
        )
        given = os.environ.get("MAYFLY_CODE_DIR")
        store = self.attempt.store
        code = Path(given) if given else environment.unpack_code(store, self.order.code, self.scratch / "code")
        self.job = code.absolute() / "job"
        self._start_host()
        self.log.say(
            f"{self.order.job} attempt {self.order.attempt} on {self.order.cluster}: {self.order.script}, "
            f"{self.order.workers}"
        )
        self.script_path = self.job / self.order.script
        try:
            compile(self.script_path.read_bytes(), str(self.script_path), "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError) as error:
            raise Ended("preflight", self._quote(error), kind="script") from error
        self._wait(self.orchestrator.looked.is_set, timeout=5)
        self._watch()

    def _quote(self, error: Exception) -> str:
        import traceback

        if isinstance(error, SyntaxError):
            return "".join(traceback.format_exception_only(error)).rstrip()
        return f"{self.order.script}: {error}"

    def _start_dask(self) -> None:
        self._enter(Phase.START)
        self._wait(lambda: "ready" in self.answers)
        ready = self.answers["ready"]
        self.evidence.dashboard = ready["dashboard"]
        self.log.say(
            f"Dask is up after {self.evidence.elapsed:.1f} s: {ready['workers']} workers, {ready['dashboard']}"
        )

    def _preflight(self) -> None:
        self._enter(Phase.PREFLIGHT)
        answer = self._ask("preflight")
        if not answer["ok"]:
            raise Ended("preflight", answer["error"], kind=answer["kind"])
        self.versions = answer["versions"]

    def _run_script(self) -> None:
        self._enter(Phase.RUN)
        ready = self.answers["ready"]
        variables = environment.script_environment(
            self.base, order=self.order, job=self.job, address=ready["address"], tls=ready["tls"]
        )
        self.script = subprocess.Popen(
            [sys.executable, str(self.script_path), *self.order.args],
            cwd=self.job,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.loop.read_lines(self.script.stdout, Lines(lambda block: self.log.add("script", block)))
        self._wait(lambda: self.script is not None and self.script.poll() is not None)
        self._drain()

    # ------------------------------------------------------------ the end

    def _end(self, end: Ended, ended_in: Phase) -> Facts:
        if end.by != "script":
            self.log.say(f"ending the job: {end.by}{f' ({end.detail.splitlines()[0]})' if end.detail else ''}")
        in_a_hurry = end.by in ("cancelled", "closing", "expired", "lease")
        if end.by in ("stalled", "timeout"):
            self._dump_stacks()
        exit_code = self._end_script()
        self._enter(Phase.COLLECT)
        if ended_in is Phase.RUN and not in_a_hurry and self._host_lives():
            self._ask("collect", timeout=60, watched=False)
        host_exit = self.host.poll() if self.host else None
        self._enter(Phase.STOP)
        self._stop_host()
        if ended_in is Phase.RUN and self.evidence.tasks.done == 0 and exit_code == 0:
            self._note_no_tasks("")
        return Facts(
            ended_by=end.by,
            exit_code=exit_code,
            log_tail=tuple(self.log.tails.get("script", ())),
            host_log_tail=tuple(self.log.tails.get("host", ())),
            host_exit=host_exit,
            phase=str(ended_in),
            worker_exits=tuple(self.evidence.worker_exits[-50:]),
            worker_memory_limit=self.order.workers.memory,
            script_memory_limit=self.order.script_memory or 0,
            peaks=self.evidence.peaks,
            preflight_error=end.detail if end.by == "preflight" else "",
            preflight_kind=end.kind,
            limit_s=end.limit,
            oom_kills=max(0, oom_kills() - self._oom_before),
            detail="" if end.by == "preflight" else end.detail,
        )

    def _end_script(self) -> int | None:
        """End the script and whatever it left behind; its exit code, None when it never started."""
        if self.script is None:
            return None
        leader = self.script
        if leader.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.pid, signal.SIGTERM)
            self._wait(lambda: leader.poll() is not None, timeout=self.order.timing.stop_grace, watched=False)
            if leader.poll() is None:
                self.log.say(f"the script ignored SIGTERM for {self.order.timing.stop_grace:g} s: SIGKILL")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(leader.pid, signal.SIGKILL)
                self._wait(lambda: leader.poll() is not None, timeout=5, watched=False)
        left = tree.end_all(but=[self.host.pid] if self.host else [], grace=min(1.0, self.order.timing.stop_grace))
        if left:
            self.log.say(f"ended {left} process{'es' if left > 1 else ''} that the script had left behind")
        self._drain()
        return leader.poll()

    def _stop_host(self) -> None:
        if self.host is not None and self._host_lives():
            self._tell("stop")
            host = self.host
            self._wait(lambda: host.poll() is not None, timeout=4, watched=False)
        tree.end_all(grace=0)
        if self.host is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.host.wait(1)
        reap_orphans(set())  # or they stay zombies where init does not collect
        self._drain()
        if listing := os.environ.get("MAYFLY_PROCESSES_FILE"):
            tree.write_list(Path(listing), tree.descendants())

    def _write_record(self, end: Ended, facts: Facts) -> int:
        try:
            failure = classify(facts)
        except Exception as error:  # a record without its class is better than none
            self.log.say(f"classification failed: {error!r}")
            from mayfly.contract import Failure

            failure = Failure(cls=FailureClass.USER_ERROR, evidence=(f"ended by {facts.ended_by}",))
        outcome = Outcome.SUCCESS
        if failure is not None:
            outcome = Outcome.CANCELLED if failure.cls is FailureClass.CANCELLED else Outcome.FAILED
        self.log.say(f"{outcome}" + (f": {failure.summary()}" if failure else ""))
        self._collect_files()
        self._enter(Phase.ENDED)
        record = Record(
            cluster=self.order.cluster,
            job=self.order.job,
            attempt=self.order.attempt,
            outcome=outcome,
            failure=failure,
            exit_code=facts.exit_code,
            started_at=self.started_at,
            ended_at=Timestamp(time.time()),
            phases={name: round(seconds, 3) for name, seconds in self.phases.items()},
            peaks=self.evidence.peaks,
            tasks=self.evidence.tasks,
            workers_lost=self.evidence.workers_lost,
            versions=self.versions,
            notes=tuple(self.notes),
        )
        self.writer.latest(f"{self.attempt.path}/status.json", encode(self.evidence.status(Phase.ENDED)))
        last = Write(path=f"{self.attempt.path}/record.json", data=encode(record), once=True)
        patience = self.order.timing.last_write
        written = self.writer.finish(last, timeout=min(6.0, patience) if end.by == "cancelled" else patience)
        if not written:
            print(f"mayfly: no record written: {self.writer.problem}", file=sys.stderr, flush=True)
            return 3
        return 0 if failure is None else 1

    def _collect_files(self) -> None:
        self._close_metrics()
        whole = self.log.close()
        self._put_ordered("driver.log", whole)
        for path in (self.scratch / "dask-report.html", *sorted((self.scratch / "logs").glob("*.txt"))):
            with contextlib.suppress(OSError):
                self._put_ordered(path.relative_to(self.scratch).as_posix(), path.read_bytes())

    # ------------------------------------------------------------ waiting and watching

    def _wait(self, done: Callable[[], bool], *, timeout: float | None = None, watched: bool = True) -> bool:
        """Keep everything going until `done()`; False when `timeout` seconds passed. Watched waiting raises Ended."""
        until = None if timeout is None else time.monotonic() + timeout
        while not done():
            if until is not None and time.monotonic() >= until:
                return False
            self.loop.once(min(0.25, max(0.0, self._next_tick - time.monotonic())))
            own = {child.pid for child in (self.host, self.script) if child is not None and child.poll() is None}
            reap_orphans(own)
            self._tick()
            if watched:
                self._watch()
        return True

    def _drain(self) -> None:
        for _ in range(2000):
            before = sum(self.log.bytes_by_source.values())
            self.loop.once(0)
            if sum(self.log.bytes_by_source.values()) == before:
                return

    def _watch(self) -> None:
        now, limits = time.monotonic(), self.order.limits
        in_phase = now - self._phase_since
        if self.loop.asked_to_stop:
            raise Ended("cancelled", f"{self.loop.asked_to_stop} received")
        if self.orchestrator.closing:
            raise Ended("closing", f"closing.json: {self.orchestrator.closing}")
        if time.time() >= self.order.expires_at:
            raise Ended("expired", "the cluster's maximum age is over")
        if self.orchestrator.lease_stale:
            ttl = self.orchestrator.lease_ttl
            raise Ended("lease", f"no sign of the orchestrator for {ttl:g} s", limit=ttl)
        if self.phase is Phase.RUN:
            if in_phase > limits.job:
                raise Ended("timeout", f"the script ran longer than {limits.job:g} s", limit=limits.job)
            if self._stall.stalled(now):
                raise Ended("stalled", f"nothing moved for {limits.stall:g} s", limit=limits.stall)
            most = self.order.script_memory
            if most is not None and self.evidence.script_memory > most:
                raise Ended(
                    "script_memory",
                    f"the script's processes use {self.evidence.script_memory:,} bytes, the limit is {most:,}",
                    limit=most,
                )
        elif self.evidence.elapsed > limits.start:
            raise Ended("start", f"not ready after {limits.start:g} s (phase {self.phase})", limit=limits.start)
        if "failed" in self.answers:
            raise Ended("start", self.answers["failed"]["error"])
        if self.host is not None and not self._host_lives():
            self._host_died()

    def _host_died(self) -> None:
        """The script may notice by itself and end well (it needed no scheduler any more): a moment for that."""
        code = self.host.poll() if self.host else None
        detail = f"the host process ended with {code}"
        if self.phase is not Phase.RUN:
            raise Ended("start", f"{detail} in phase {self.phase}")
        script = self.script
        if script is not None:
            self._wait(lambda: script.poll() is not None, timeout=2, watched=False)
            if script.poll() == 0:
                self.notes.append("the Dask scheduler ended before the script did")
                raise Ended("script")
        raise Ended("host", detail)

    def _tick(self) -> None:
        now = time.monotonic()
        self.log.tick()
        if now < self._next_tick:
            return
        self._next_tick = now + self.order.timing.status
        everyone = tree.descendants()
        mine = {self.script.pid} if self.script is not None else set()
        hosts = {self.host.pid, *(p.pid for p in tree.descendants(self.host.pid))} if self.host is not None else set()
        script_use = tree.use(p for p in everyone if p.pid in mine or p.pid not in hosts)
        self.evidence.script_memory = script_use.memory
        self.evidence.cpu_script = sum(self._meter.rates(now, script_use).values())
        if self.host is not None:
            self.evidence.host_memory = tree.use(p for p in everyone if p.pid == self.host.pid).memory
            workers = tree.use(p for p in everyone if p.pid in hosts and p.pid != self.host.pid)
            self.evidence.largest_worker = workers.largest
        self.evidence.update_peaks()
        if now >= self._next_look:
            self._look(now, everyone)
        if listing := os.environ.get("MAYFLY_PROCESSES_FILE"):
            tree.write_list(Path(listing), everyone)
        self.writer.latest(
            f"{self.attempt.path}/status.json", encode(self.evidence.status(self.phase, note=self._note()))
        )
        self._metrics += self.evidence.metrics_line()
        if now - self._metrics_at >= self.order.timing.segment or len(self._metrics) >= SEGMENT_BYTES:
            self._close_metrics()

    def _look(self, now: float, everyone: list[Any]) -> None:
        """The stall watch's look: CPU over a longer window, or a heartbeat's flicker would count as work."""
        window = max(self.order.timing.status, min(60.0, self.order.limits.stall / 8))
        self._next_look = now + window
        host = self.host.pid if self.host is not None else 0
        rates = self._stall_meter.rates(now, tree.use(p for p in everyone if p.pid != host))
        self.evidence.busiest = max(rates.values(), default=0.0)
        if self.phase is not Phase.RUN:
            return
        self._stall.see(now, self.evidence.activity(output_bytes=self._script_bytes() - self._dumped))
        if self._stall.half(now):
            self.log.say(f"nothing has moved for {self._stall.quiet_for(now):.0f} s; this is where everybody waits:")
            self._dump_stacks()
        in_phase = now - self._phase_since
        if not self._told_no_tasks and in_phase >= self.order.timing.no_tasks and self.evidence.host.get("done") == 0:
            if not self.evidence.host.get("running") and not self.evidence.host.get("waiting"):
                self._note_no_tasks(f"in the first {in_phase:.0f} s")

    def _script_bytes(self) -> int:
        return self.log.bytes_by_source.get("script", 0)

    def _note(self) -> str:
        if self.phase is Phase.RUN and self._told_no_tasks and self.evidence.tasks.done == 0:
            return "no task has run on the cluster"
        return ""

    def _note_no_tasks(self, when: str) -> None:
        self._told_no_tasks = True
        text = NO_TASKS.format(when=when).replace(" :", ":")
        self.notes = [note for note in self.notes if not note.startswith("no task ran")] + [text]
        self.log.say(text)

    def _dump_stacks(self) -> None:
        """Where script and workers are: faulthandler in the script (our sitecustomize asked for it), Dask for tasks."""
        if self.script is not None and self.script.poll() is None and _catches(self.script.pid, signal.SIGUSR1):
            self.log.say("the script's threads:")
            before = self._script_bytes()
            os.kill(self.script.pid, signal.SIGUSR1)
            self._wait(lambda: False, timeout=0.3, watched=False)
            self._dumped += self._script_bytes() - before  # that was us, no sign of life
        if self._host_lives():
            answer = self._ask("stacks", timeout=5, watched=False)
            for line in answer.get("lines", ()):
                self.log.say(line)

    # ------------------------------------------------------------ children

    def _start_host(self) -> None:
        order = self.order
        dask_config, worker_file = self.scratch / "dask.yaml", self.scratch / "worker.json"
        environment.write_dask_settings(order, dask_config)
        output = self._listen_to_workers()
        self._private(worker_file, {"env": dict(order.env), "folder": str(self.job), "output": output})
        self.base = environment.base_environment(order, job=self.job, dask_config=dask_config, ambient=os.environ)
        settings = self.scratch / "host.json"
        self._private(
            settings,
            {
                "launcher": order.launcher,
                "workers": asdict(order.workers),
                "folder": str(self.scratch),
                "job": str(self.job),
                "inputs": dict(order.inputs),
                "outputs": dict(order.outputs),
                "interval": order.timing.status,
            },
        )
        ours, theirs = socket.socketpair()
        with theirs:
            self.host = subprocess.Popen(
                [sys.executable, "-m", "mayfly.driver.host", str(settings), str(theirs.fileno())],
                cwd=self.job,
                env=self.base | {"MAYFLY_WORKER_FILE": str(worker_file), "MAYFLY_SUPERVISOR": str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._control = ours
        self.loop.read_lines(ours, Lines(self._hear))
        self.loop.read_lines(
            self.host.stdout, Lines(lambda block: self._add_dask("host", block, prefix="[scheduler] "))
        )

    def _listen_to_workers(self) -> str:
        """The address to which workers connect their output; paths of sockets are short by nature (108 bytes)."""
        folder = self.scratch
        if len(str(folder)) > 80:
            folder = Path(tempfile.mkdtemp(prefix="mayfly-"))
        path = folder / "out"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(128)
        self.loop.accept(listener, self._welcome)
        return str(path)

    def _welcome(self, line: socket.socket) -> None:
        name = ""

        def emit(block: bytes) -> None:
            nonlocal name
            if not name:
                first, _, block = block.partition(b"\n")
                name = first.decode("utf-8", "replace")
            if block:
                self._add_dask("worker", block, prefix=f"[{name}] ")

        self.loop.read_lines(line, Lines(emit))

    def _add_dask(self, source: str, block: bytes, *, prefix: str) -> None:
        if self.phase is not Phase.STOP:  # what Dask says while we end it is of no use to anybody
            self.log.add(source, block, prefix=prefix)

    def _hear(self, block: bytes) -> None:
        for line in block.splitlines():
            try:
                message = json.loads(line)
                event = message.pop("event")
            except (ValueError, KeyError, AttributeError):
                continue  # the host runs user code, which may write anything anywhere
            if event == "sample":
                self.evidence.host = message
            elif event == "worker lost" and self.phase is Phase.STOP:
                continue
            elif event == "worker lost":
                self.evidence.workers_lost += 1
                results = message.get("results")
                more = f"; {results} results are computed anew" if results else ""
                self.log.say(f"lost the worker at {message.get('worker')}{more}")
            elif event == "worker exit":
                self.evidence.worker_exits.append(str(message.get("text")))
            else:
                self.answers[event] = message

    def _tell(self, command: str) -> None:
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"do": command}).encode() + b"\n")

    def _ask(self, command: str, *, timeout: float | None = None, watched: bool = True) -> dict[str, Any]:
        self.answers.pop(command, None)
        self._tell(command)
        self._wait(
            lambda: command in self.answers or not (watched or self._host_lives()), timeout=timeout, watched=watched
        )
        return self.answers.get(command, {"ok": False})

    def _host_lives(self) -> bool:
        return self.host is not None and self.host.poll() is None

    # ------------------------------------------------------------ small things

    def _enter(self, phase: Phase) -> None:
        now = time.monotonic()
        self.phases[str(self.phase)] = self.phases.get(str(self.phase), 0.0) + now - self._phase_since
        self.phase, self._phase_since = phase, now
        self._next_tick = 0.0

    def _put_segment(self, number: int, data: bytes) -> None:
        self.writer.ordered(Write(path=f"{self.attempt.path}/log/{number:06d}.txt", data=data, group="log"))

    def _put_ordered(self, name: str, data: bytes) -> None:
        self.writer.ordered(Write(path=f"{self.attempt.path}/{name}", data=data, group=name))

    def _close_metrics(self) -> None:
        if self._metrics and self.writer.room():
            path = f"{self.attempt.path}/metrics/{self._metrics_number:06d}.jsonl"
            self.writer.ordered(Write(path=path, data=bytes(self._metrics), group="metrics"))
            self._metrics_number += 1
            self._metrics.clear()
            self._metrics_at = time.monotonic()

    @staticmethod
    def _private(path: Path, value: object) -> None:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False)


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal; without one it would die of it."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            mask = next(line.split()[1] for line in file if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(mask, 16) >> (number - 1) & 1)


def main(arguments: list[str]) -> int:
    """`RUNDIR JOB ATTEMPT`. Exit codes: 0 job succeeded, 1 job failed, 2 nothing could be started, 3 no record."""
    if len(arguments) != 3 or not arguments[2].isdigit():
        print("usage: python -m mayfly.driver RUNDIR JOB ATTEMPT", file=sys.stderr)
        return 2
    url, job, number = arguments
    staging, _, name = url.rstrip("/").rpartition("/runs/")
    attempt = RunDir(open_store(staging), name).attempt(job, int(number))
    try:
        order = attempt.order()
        if order is None:
            print(f"mayfly: no order: {attempt.url}/job.json", file=sys.stderr)
            return 2
        if attempt.record() is not None:
            print(f"mayfly: this attempt has ended before: {attempt.url}/record.json", file=sys.stderr)
            return 2
    except MayflyError as error:
        print(f"mayfly: {error}", file=sys.stderr)
        return 2
    tree.become_subreaper()
    code = Supervisor(attempt, order).run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the store's threads may hang in a call that never returns
