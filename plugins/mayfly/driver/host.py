"""The host: Dask's scheduler, the workers' launcher and the sampler, in a process of their own.

User code runs here (Dask unpacks graphs on the scheduler), so it may die in any way; the supervisor explains it then.
Host and supervisor speak JSON lines over a socket pair: commands come in, events go out. When the supervisor ends,
so does the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import dask

from mayfly.contract import JobOrder, from_json
from mayfly.driver import preflight
from mayfly.driver.mayfly_preload import quiet_dask
from mayfly.driver.sampler import Sampler
from mayfly.driver.tree import die_with

LOG_BYTES = 1 << 20
"""Of each scheduler and worker log that is kept."""
CLOSE_SECONDS = 8.0
"""For the orderly end of workers; the supervisor waits a little longer."""
FLUSH_SECONDS = 0.5


class Host:
    """One host process. `settings` is host.json, see `Children.start_host`."""

    def __init__(self, settings: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.settings, self._writer = settings, writer
        self.folder = Path(settings["folder"])
        self.started = time.time()
        self.cluster: Any = None
        self.security: Any = None

    def tell(self, event: str, **more: Any) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(json.dumps({"event": event, **more}, default=str).encode() + b"\n")

    async def flush(self) -> None:
        """Until the supervisor has all that was told, but for a moment only."""
        self._writer.transport.set_write_buffer_limits(high=0)
        with contextlib.suppress(asyncio.TimeoutError, OSError):
            await asyncio.wait_for(self._writer.drain(), FLUSH_SECONDS)

    async def run(self, reader: asyncio.StreamReader) -> None:
        from mayfly.driver.launchers.base import Launch, open_launcher
        from mayfly.driver.tls import make_security

        self.security = make_security(self.folder)
        self.order = from_json(JobOrder, self.settings["order"])
        launch = Launch(
            order=self.order,
            folder=self.folder,
            job=Path(self.settings["job"]),
            security=self.security,
            staging=self.settings["staging"],
            tell=self.tell,
            drain=self._writer.drain,
        )
        quiet_dask()
        # The scheduler makes a folder of its own: in ours it goes with us, also when we are killed.
        dask.config.set({"temporary-directory": dask.config.get("temporary-directory", None) or str(self.folder)})
        _watch_nannies(self.tell)
        self.settings["asked_workers"] = max(1, launch.workers.minimum)
        async with open_launcher(launch.order.launcher)(launch) as cluster:
            self.cluster = cluster
            await self._ready()
            self._sampler = Sampler(cluster.scheduler)
            sampling = asyncio.create_task(self._sample())
            try:
                while line := await reader.readline():
                    command = json.loads(line)
                    if command["do"] == "stop":
                        break
                    await self._obey(command["do"])
            finally:
                sampling.cancel()
            with contextlib.suppress(asyncio.TimeoutError):
                if cluster.scheduler.status.name == "running":
                    await asyncio.wait_for(cluster.close(), CLOSE_SECONDS)
                elif end := getattr(cluster, "end", None):  # the script has shut Dask down, but not what carries it
                    await asyncio.wait_for(end(), CLOSE_SECONDS)
            self.tell("stopped")
            await self.flush()
            os._exit(0)  # nothing of value is left; a hanging close must not delay the end

    async def _ready(self) -> None:
        from distributed.diagnostics.plugin import SchedulerPlugin

        host = self

        class Losses(SchedulerPlugin):  # type: ignore[misc]
            def __init__(self) -> None:
                self.expected: set[str] = set()

            def restart(self, scheduler: Any) -> None:
                self.expected = set(scheduler.workers)

            def log_event(self, topic: str, msg: Any) -> None:
                if topic == "all" and isinstance(msg, dict) and msg.get("action") == "remove-worker":
                    closing = host.cluster.scheduler.status.name != "running"
                    if not (msg.get("expected", True) or closing or msg.get("worker") in self.expected):
                        host.tell("worker lost", worker=str(msg.get("worker")), results=len(msg["lost-computed-tasks"]))

        scheduler = self.cluster.scheduler
        while len(scheduler.workers) < self.settings["asked_workers"]:
            await asyncio.sleep(0.02)
        scheduler.add_plugin(Losses(), name="mayfly-losses")
        dashboard = scheduler.services.get("dashboard")
        self.tell(
            "ready",
            address=scheduler.address,
            dashboard=f"http://127.0.0.1:{dashboard.port}/status" if dashboard else "",
            workers=len(scheduler.workers),
            tls={
                "ca": self.security.tls_ca_file,
                "cert": self.security.tls_client_cert,
                "key": self.security.tls_client_key,
            },
        )

    async def _sample(self) -> None:
        while True:
            self._tell_sample()
            await asyncio.sleep(self.order.timing.status)

    def _tell_sample(self) -> None:
        self.tell("sample", **self._sampler.sample(wanted=len(self.cluster.worker_spec)))

    async def _obey(self, command: str) -> None:
        try:
            answer = await getattr(self, f"do_{command}")()
        except preflight.PreflightError as error:
            self.tell(command, ok=False, kind=error.kind, error=str(error))
        except Exception as error:
            self.tell(command, ok=False, kind="", error="".join(traceback.format_exception(error))[-4000:])
        else:
            self.tell(command, ok=True, **answer)

    async def do_preflight(self) -> dict[str, Any]:
        versions = await preflight.run(
            self.cluster.scheduler,
            inputs=self.order.inputs,
            outputs=self.order.outputs,
            security=self.security,
        )
        self.started = time.time()  # the report shall not show our own checks
        return {"versions": versions}

    async def do_stacks(self) -> dict[str, Any]:
        """What every worker is doing."""
        found = await asyncio.wait_for(self.cluster.scheduler.get_call_stack(), 10)
        lines = []
        for worker, by_task in found.items():
            name = self.cluster.scheduler.workers[worker].name
            for task, frames in by_task.items():
                lines += [f"worker {name}, task {task}:", *(line for frame in frames for line in frame.splitlines())]
        return {"lines": lines or ["no worker runs a task"]}

    async def do_collect(self) -> dict[str, Any]:
        """The logs of scheduler and workers, then Dask's report, as files; the supervisor takes what is there."""
        self._tell_sample()  # the last word on how many tasks ran
        scheduler = self.cluster.scheduler
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        _write_log(logs / "scheduler.txt", scheduler.get_logs())
        with contextlib.suppress(asyncio.TimeoutError, OSError):
            for address, lines in (await asyncio.wait_for(scheduler.get_worker_logs(), 5)).items():
                if isinstance(lines, (list, tuple)) and address in scheduler.workers:
                    path = logs / f"worker-{scheduler.workers[address].name}.txt"
                    if not path.exists():  # else it has been brought here all the time
                        _write_log(path, lines)
        self.tell("logs")
        html = await scheduler.performance_report(start=self.started, last_count=0, code="")
        (self.folder / "dask-report.html").write_text(html, encoding="utf-8")
        return {}


def _write_log(path: Path, lines: Any) -> None:
    text = "\n".join(str(line[1]) for line in reversed(list(lines)))
    path.write_text(text[-LOG_BYTES:] + "\n", encoding="utf-8")


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _watch_nannies(tell: Any) -> None:
    """A nanny knows how its worker died; it says so in its log only, in part below the level that is shown."""

    class Tell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if any(words in text for words in ("killed by", "exited with status", "memory budget", "Restarting")):
                tell("worker exit", text=text)

    logging.getLogger("distributed.nanny").addHandler(Tell())


async def _main(settings: dict[str, Any], control: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=control, limit=1 << 20)
    host = Host(settings, writer)
    me = asyncio.current_task()
    # Asked to end before it is ready: what was started elsewhere shall end, too.
    if me is not None and settings["order"]["launcher"] != "processes":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    try:
        await host.run(reader)
    except asyncio.CancelledError:
        await host.flush()
        os._exit(0)
    except Exception as error:
        kind = str(getattr(error, "kind", ""))  # a LaunchError speaks for itself
        text = str(error) if kind or type(error).__name__ == "LaunchError" else _last_line(error)
        if not kind:
            traceback.print_exc()
        host.tell("failed", error=text[-2000:], kind=kind)
        await host.flush()
        sys.stderr.flush()
        os._exit(1)


def main() -> None:
    die_with(int(os.environ["MAYFLY_SUPERVISOR"]))
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    control = socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(control.fileno(), False)
    asyncio.run(_main(settings, control))


if __name__ == "__main__":
    main()
