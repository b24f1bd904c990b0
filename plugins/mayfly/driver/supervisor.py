"""The supervisor: owns the attempt in the run directory, the limits, the signals and the record.

It imports neither Dask nor user code. Two children do the work, and each may die in any way: the *host* (scheduler,
launcher, sampler) and the *script*. Whatever happens, the end is the same path: end the script, collect, stop the
host, end all descendants, write the record.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mayfly.contract import JobOrder, Phase, Started, Timestamp, encode
from mayfly.driver import environment, node, tree
from mayfly.driver.carrier import Carrier
from mayfly.driver.children import Children
from mayfly.driver.evidence import Evidence, oom_kills
from mayfly.driver.gauge import Gauge
from mayfly.driver.logbook import Logbook
from mayfly.driver.loop import Loop, reap_orphans
from mayfly.driver.orchestrator import Orchestrator
from mayfly.driver.record import explain, make_record, no_start, outcome_of
from mayfly.driver.watch import Ended, Seen, reason_to_end
from mayfly.driver.writer import Write, Writer
from mayfly.errors import MayflyError
from mayfly.failures.classify import Facts
from mayfly.staging.rundir import AttemptDir, RunDir
from mayfly.staging.stores import open_store

COLLECT_SECONDS = 60.0
"""For Dask's report and logs."""
STOP_SECONDS = 9.0
"""For the host's orderly end; one of `processes` takes a tenth of a second."""


class Supervisor:
    """One attempt of one job, from `run()` to its record."""

    def __init__(self, attempt: AttemptDir, order: JobOrder) -> None:
        self.attempt, self.order = attempt, order
        self.started_at = Timestamp(time.time())
        self.phase = Phase.PREPARE
        self.phases: dict[str, float] = {}
        self._phase_since = time.monotonic()
        self.scratch = Path(tempfile.mkdtemp(prefix=f"{order.job}-{order.attempt}-", dir=Path.cwd()))
        self.loop = Loop()
        self.carrier = Carrier(self.loop)
        self.evidence = Evidence()
        self.writer = Writer(attempt.store)
        self.log = Logbook(
            spool=self.scratch / "log",
            put=self._put_segment,
            room=self.writer.room,
            segment_seconds=order.timing.segment,
        )
        self.children = Children(
            order=order, scratch=self.scratch, loop=self.loop, log=self.log, evidence=self.evidence
        )
        self.gauge = Gauge(
            order=order,
            path=attempt.path,
            evidence=self.evidence,
            children=self.children,
            log=self.log,
            writer=self.writer,
        )
        self.orchestrator = Orchestrator(
            attempt,
            ttl=order.lease_ttl,
            interval=min(15.0, max(order.timing.status / 2, order.lease_ttl / 10)),
        )
        self.notes: list[str] = []
        self.versions: dict[str, str] = {}
        self._oom_before = oom_kills()

    # ------------------------------------------------------------ the path

    def run(self) -> int:
        """0 = the job succeeded, 1 = it did not, 3 = the record could not be written."""
        try:
            job, script = self._prepare()
            self._start_dask()
            self._preflight()
            self._run_script(job, script)
            end = Ended("script")
        except Ended as ended:
            end = ended
        except Exception as error:
            self.log.say("".join(traceback.format_exception(error)))
            end = Ended("start", f"the driver failed: {error!r}")
        facts = self._end(end, ended_in=self.phase)
        code = self._write_record(end, facts)
        self.children.close()
        shutil.rmtree(self.scratch, ignore_errors=True)  # keys, and what workers have spilled
        return code

    def _prepare(self) -> tuple[Path, Path]:
        """The job's unpacked folder and the script in it. The host starts at once; the rest happens meanwhile."""
        given = os.environ.get("MAYFLY_CODE_DIR")
        store = self.attempt.store
        code = Path(given) if given else environment.unpack_code(store, self.order.code, self.scratch / "code")
        environment.restore_modes(code)
        job = code.absolute() / "job"
        self.children.start_host(job, staging=self.attempt.store.url)
        self.log.say(
            f"{self.order.job} attempt {self.order.attempt} on {self.order.cluster}: {self.order.script}, "
            f"{self.order.workers}"
        )
        script = job / self.order.script
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are the script's, and come when it runs
                compile(script.read_bytes(), str(script), "exec", dont_inherit=True)
        except SyntaxError as error:
            text = "".join(traceback.format_exception_only(error)).rstrip()
            raise Ended("preflight", text, kind="script") from error
        except (OSError, ValueError) as error:
            raise Ended("preflight", f"{self.order.script}: {error}", kind="script") from error
        if environment.speaks_of_dask(job, script):
            self.children.start_early(job, script)
        self._wait(self.orchestrator.looked.is_set, timeout=5)
        self._watch()
        return job, script

    def _start_dask(self) -> None:
        self._enter(Phase.START)
        self._wait(lambda: "ready" in self.children.answers)
        ready = self.children.answers["ready"]
        self.evidence.dashboard = ready["dashboard"]
        count = f"{ready['workers']} worker{'s' if ready['workers'] != 1 else ''}"
        self.log.say(f"Dask is up after {self.evidence.elapsed:.1f} s: {count}, dashboard {ready['dashboard']}")

    def _preflight(self) -> None:
        self._enter(Phase.PREFLIGHT)
        answer = self._ask("preflight")
        if not answer["ok"]:
            raise Ended("preflight", answer["error"], kind=answer["kind"])
        self.versions = answer["versions"]

    def _run_script(self, job: Path, script: Path) -> None:
        self._enter(Phase.RUN)
        self.children.start_script(job, script)
        self._wait(lambda: not self.children.script_lives)
        self._drain()

    # ------------------------------------------------------------ the end

    def _end(self, end: Ended, *, ended_in: Phase) -> Facts:
        if end.by != "script":
            self.log.say(f"ending the job: {end.by}{f' ({end.detail.splitlines()[0]})' if end.detail else ''}")
        self.children.end_early()
        if end.by in ("stalled", "timeout"):
            self._dump_stacks()
        exit_code = self._end_script()
        self._enter(Phase.COLLECT)
        in_a_hurry = end.by in ("cancelled", "carrier", "closing", "expired", "lease")
        if ended_in is Phase.RUN and not in_a_hurry and self.children.host_lives:
            self._ask("collect", timeout=COLLECT_SECONDS, watched=False)
        host = self.children.host
        host_exit = host.poll() if host is not None else None
        self._enter(Phase.STOP)
        self._stop_host()
        if ended_in is Phase.RUN and exit_code == 0 and end.by == "script" and self.evidence.tasks.done == 0:
            self.gauge.note_no_tasks()
        if self.gauge.no_tasks and self.evidence.tasks.done == 0:
            self.notes.append(self.gauge.no_tasks)
        return Facts(
            ended_by=end.by,
            exit_code=exit_code,
            log_tail=self.log.tail("script"),
            host_log_tail=self.log.tail("host"),
            host_exit=host_exit,
            phase=str(ended_in),
            worker_exits=tuple(self.evidence.worker_exits),
            worker_memory_limit=self.order.workers.memory,
            script_memory_limit=self.order.script_memory or 0,
            peaks=self.evidence.peaks,
            preflight_error=end.detail if end.by == "preflight" else "",
            preflight_kind=end.kind,
            limit_s=end.limit,
            oom_kills=max(0, oom_kills() - self._oom_before),
            detail="" if end.by == "preflight" else end.detail,
            # Why it waited is why it ended only where its patience ended.
            waiting=self.evidence.waiting if end.by == "start" and end.limit else "",
            launcher=self.order.launcher,
        )

    def _end_script(self) -> int | None:
        """End the script and whatever it left behind; its exit code, None when it never started."""
        children, grace = self.children, self.order.timing.stop_grace
        if children.script is None:
            return None
        if children.script_lives:
            children.signal_script(signal.SIGTERM)
            if not self._wait(lambda: not children.script_lives, timeout=grace, watched=False):
                self.log.say(f"the script ignored SIGTERM for {grace:g} s: SIGKILL")
                children.signal_script(signal.SIGKILL)
                self._wait(lambda: not children.script_lives, timeout=5, watched=False)
        left = tree.end_all(but=[children.host.pid] if children.host else [], grace=min(1.0, grace))
        if left:
            self.log.say(f"ended {left} process{'es' if left > 1 else ''} that the script had left behind")
        self._drain()
        return children.script.poll()

    def _stop_host(self) -> None:
        children = self.children
        children.quiet = True
        if children.host_lives and "ready" in children.answers:  # before that it does not listen
            children.tell("stop")
            self._wait(lambda: not children.host_lives, timeout=STOP_SECONDS, watched=False)
        elif children.host_lives and children.host is not None and self.order.launcher != "processes":
            children.host.terminate()  # what it has started elsewhere shall end with it
            self._wait(lambda: not children.host_lives, timeout=STOP_SECONDS, watched=False)
        tree.end_all(grace=0)
        if children.host is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                children.host.wait(1)
        reap_orphans(set())  # or they stay zombies where init does not collect
        self._drain()
        self.gauge.list_processes(tree.descendants())

    def _write_record(self, end: Ended, facts: Facts) -> int:
        failure = explain(facts, complain=self.log.say)
        outcome = outcome_of(failure)
        # The class alone: evidence and advice are the record's, and stand at the end of whatever shows this log.
        self.log.say(f"{outcome}: {failure.cls}" if failure else f"{outcome}")
        self._put_files()
        self._enter(Phase.ENDED)
        record = make_record(
            self.order,
            failure=failure,
            exit_code=facts.exit_code,
            started_at=self.started_at,
            phases=self.phases,
            evidence=self.evidence,
            versions=self.versions,
            notes=self.notes,
        )
        self.writer.latest(f"{self.attempt.path}/status.json", encode(self.evidence.status(Phase.ENDED)))
        last = Write(path=f"{self.attempt.path}/record.json", data=encode(record), once=True)
        patience = self.order.timing.last_write
        if not self.writer.finish(last, timeout=min(6.0, patience) if end.by == "cancelled" else patience):
            with contextlib.suppress(OSError, ValueError):  # nobody may be there to read it
                print(f"mayfly: no record written: {self.writer.problem}", file=sys.stderr, flush=True)
            return 3
        return 0 if failure is None else 1

    def _put_files(self) -> None:
        """What is written once, at the end."""
        self.gauge.close_metrics()
        self._put("driver.log", self.log.close())
        for path in (self.scratch / "dask-report.html", *sorted((self.scratch / "logs").glob("*.txt"))):
            with contextlib.suppress(OSError):
                self._put(path.relative_to(self.scratch).as_posix(), path.read_bytes())

    # ------------------------------------------------------------ waiting and watching

    def _wait(self, done: Callable[[], bool], *, timeout: float | None = None, watched: bool = True) -> bool:
        """Keep everything going until `done()`; False when `timeout` seconds passed. Watched waiting raises Ended."""
        until = None if timeout is None else time.monotonic() + timeout
        while not done():
            if until is not None and time.monotonic() >= until:
                return False
            self.loop.once(min(0.25, self.gauge.seconds_to_next))
            reap_orphans(self.children.running())
            self.gauge.tick(self.phase)
            if watched:
                self._watch()
        return True

    def _ask(self, command: str, *, timeout: float | None = None, watched: bool = True) -> dict[str, Any]:
        """The host's answer; `{"ok": False}` when there is none in time."""
        children = self.children

        def answered() -> bool:
            hopeless = not watched and (not children.host_lives or bool(self.loop.asked_to_stop))
            return command in children.answers or hopeless

        children.tell(command)
        self._wait(answered, timeout=timeout, watched=watched)
        return children.answers.get(command, {"ok": False})

    def _drain(self) -> None:
        """Read what is there now, from everybody."""
        for _ in range(2000):
            before = sum(self.log.bytes_by_source.values())
            self.loop.once(0)
            if sum(self.log.bytes_by_source.values()) == before:
                return

    def _watch(self) -> None:
        """Raise Ended when there is a reason to end."""
        now, stall = time.monotonic(), self.gauge.stall
        seen = Seen(
            phase=self.phase,
            now=time.time(),
            elapsed=self.evidence.elapsed,
            in_phase=now - self._phase_since,
            signal=self.loop.asked_to_stop,
            carrier_gone=self.carrier.gone,
            closing=self.orchestrator.closing,
            cancel=self.orchestrator.cancel,
            lease_stale=self.orchestrator.lease_stale,
            lease_ttl=self.orchestrator.lease_ttl,
            start_error=self.children.answers.get("failed", {}).get("error", ""),
            start_kind=self.children.answers.get("failed", {}).get("kind", ""),
            stalled=self.phase is Phase.RUN and stall.stalled(now),
            script_memory=self.evidence.script_memory,
        )
        if ended := reason_to_end(seen, self.order):
            raise ended
        if self.phase is Phase.RUN and stall.half(now):
            self.log.say(f"nothing has moved for {stall.quiet_for(now):.0f} s; this is where everybody waits:")
            self._dump_stacks()
        if self.children.host is not None and not self.children.host_lives:
            self._host_died()

    def _host_died(self) -> None:
        """The script may notice by itself and end well (it needed no scheduler any more): a moment for that."""
        children = self.children
        self._drain()
        if "failed" in children.answers:  # its last words were still in the line
            raise Ended("start", children.answers["failed"]["error"], kind=children.answers["failed"].get("kind", ""))
        detail = f"the host process ended with {children.host.poll() if children.host else None}"
        if self.phase is not Phase.RUN:
            raise Ended("start", f"{detail} in phase {self.phase}")
        if self._wait(lambda: not children.script_lives, timeout=2, watched=False) and children.script is not None:
            if children.script.poll() == 0:
                self.notes.append("the Dask scheduler ended before the script did")
                raise Ended("script")
        raise Ended("host", detail)

    def _dump_stacks(self) -> None:
        """Where script and workers are, into the log."""
        before = self.gauge.script_bytes
        self.log.say("the script's threads:")
        self.gauge.disturbed = True
        if self.children.ask_script_for_stacks():
            self._wait(lambda: False, timeout=0.3, watched=False)
            self.gauge.our_output += self.gauge.script_bytes - before
        self.gauge.disturbed = False
        for line in self._ask("stacks", timeout=5, watched=False).get("lines", ()):
            self.log.say(line)

    # ------------------------------------------------------------ small things

    def _enter(self, phase: Phase) -> None:
        now = time.monotonic()
        self.phases[str(self.phase)] = self.phases.get(str(self.phase), 0.0) + now - self._phase_since
        self.phase, self._phase_since = phase, now
        self.gauge.hurry()

    def _put_segment(self, number: int, data: bytes) -> None:
        self.writer.ordered(Write(path=f"{self.attempt.path}/log/{number:06d}.txt", data=data, group="log"))

    def _put(self, name: str, data: bytes) -> None:
        self.writer.ordered(Write(path=f"{self.attempt.path}/{name}", data=data, group=name))


def main(arguments: list[str]) -> int:
    """`RUNDIR JOB ATTEMPT`. Exit codes: 0 job succeeded, 1 job failed, 2 nothing could be started, 3 no record,
    17 another driver has taken this attempt."""
    if len(arguments) != 3 or not arguments[2].isdigit():
        print("usage: python -m mayfly.driver RUNDIR JOB ATTEMPT", file=sys.stderr)
        return 2
    url, job, number = arguments
    staging, _, name = url.rstrip("/").rpartition("/runs/")
    attempt = RunDir(open_store(staging), name).attempt(job, int(number))
    try:
        order = attempt.order()
        ended = attempt.record() is not None
    except MayflyError as error:
        print(f"mayfly: {error}", file=sys.stderr)
        return 2
    if order is None or ended:
        problem = f"this attempt has ended before: {attempt.url}/record.json" if ended else f"no {attempt.url}/job.json"
        print(f"mayfly: {problem}", file=sys.stderr)
        return 2
    try:
        me = Started(pid=os.getpid(), host=platform.node(), at=Timestamp(time.time()))
        if not attempt.create("started.json", me):
            print(f"mayfly: another driver has taken this attempt: {attempt.url}/started.json", file=sys.stderr)
            return 17
    except MayflyError as error:
        print(f"mayfly: nothing can be recorded, so nothing is started: {error}", file=sys.stderr)
        return 2
    tree.become_subreaper()
    node.share_files()
    try:
        supervisor = Supervisor(attempt, order)
    except OSError as error:  # no scratch space, no file descriptors
        print(f"mayfly: {error!r}", file=sys.stderr)
        with contextlib.suppress(MayflyError):
            attempt.create("record.json", no_start(order, error))
        return 1
    code = supervisor.run()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # the store's threads may hang in a call that never returns
