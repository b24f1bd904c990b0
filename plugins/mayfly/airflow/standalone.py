"""A whole Airflow on this machine: `python -m mayfly.airflow.standalone`, and a library for live tests.

Why not `airflow standalone`: it listens on all interfaces, does not say where or with which password a second time,
leaves children behind when one component hangs, and its SQLite gives up under parallel tasks. This one:

- keeps everything below AIRFLOW_HOME (default: .airflow in the project), ends everything it started, and only that;
- asks for a password although it listens on loopback only: every user and every web page of this machine reaches
  loopback, and whoever can trigger a DAG can run code.

Clusters of runs in progress are not components: their drivers are made to survive Airflow. They end by themselves when
their lease goes stale, or go on when Airflow is back in time.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
USER = "admin"
STOP_SECONDS = 15.0
API_PATIENCE_SECONDS = 3
MOST_DEATHS = 10


class Stack:
    """One Airflow: its folder, its settings, its processes. Every process is in a session of its own, so that all
    it forked can be found and ended."""

    def __init__(
        self,
        *,
        home: Path,
        project: Path,
        port: int,
        plugins: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.home, self.project, self.port = home, project, port
        self.plugins = plugins or project / "plugins"
        self.url = f"http://127.0.0.1:{port}"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.secrets = self._secrets()
        self.env = {**os.environ, **self._settings(), **(settings or {})}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    # -- settings

    def _secrets(self) -> dict[str, str]:
        """Password and signing keys, made once: components must share them, a restart must keep logins."""
        path = self.home / "secrets.json"
        if not path.exists():
            made = {name: secrets.token_urlsafe(24) for name in ("password", "jwt", "session")}
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(made, file)
        loaded: dict[str, str] = json.loads(path.read_text())
        return loaded

    def _settings(self) -> dict[str, str]:
        passwords = self.home / "passwords.json"
        with os.fdopen(os.open(passwords, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({USER: self.secrets["password"]}, file)
        return {
            "AIRFLOW_HOME": str(self.home),
            "MAYFLY_HOME": str(self.project),
            "PYTHONPATH": os.pathsep.join([str(self.plugins), *filter(None, [os.environ.get("PYTHONPATH")])]),
            # With less patience SQLite answers "database is locked" under parallel tasks.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._database(patience=60),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.project / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.plugins),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__AUTH_MANAGER": (
                "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
            ),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": self.secrets["session"],
            "AIRFLOW__API_AUTH__JWT_SECRET": self.secrets["jwt"],
            # A task's end is often noticed only at its next heartbeat: 1 s instead of 5 s for each step of a run.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    def _database(self, *, patience: int) -> str:
        return f"sqlite:///{self.home}/airflow.db?timeout={patience}"

    def _component_settings(self, name: str) -> dict[str, str]:
        """The api-server's patience is short: Airflow 3.3 writes its audit log on the event loop, and where another of
        its requests holds SQLite's only write lock, that one cannot commit before the loop is free again. Both wait
        until the patience ends: a stall of everything, then one 500, which a task's client repeats by itself."""
        ours = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
        if name == "api-server" and self.env[ours] == self._database(patience=60):
            return {ours: self._database(patience=API_PATIENCE_SECONDS)}
        return {}

    # -- life

    def migrate(self) -> None:
        """Make or upgrade the metadata. CalledProcessError with the end of the log when that fails."""
        log = self.home / "migrate.log"
        with log.open("wb") as out:
            done = subprocess.run(self._command("db", "migrate"), env=self.env, stdout=out, stderr=out, check=False)
        if done.returncode:
            raise SystemExit(f"airflow db migrate failed; see {log}\n{_tail(log)}")

    def start(self, components: tuple[str, ...] = COMPONENTS) -> None:
        """Start components, each with a log of its own."""
        for name in components:
            with (self.home / f"{name}.log").open("ab") as out:
                self.processes[name] = subprocess.Popen(
                    self._command(name), env=self.env | self._component_settings(name),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    start_new_session=True, cwd=self.home,
                )  # fmt: skip

    def dead(self) -> list[str]:
        """Components that have ended by themselves."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def revive(self) -> list[str]:
        """Start again what has ended; returns its names.

        SQLite has no row locks, and a scheduler that loses a race with the api-server ends (StaleDataError); elsewhere
        whatever runs the scheduler starts it again, too.
        """
        ended = self.dead()
        for name in ended:
            self._end_session(self.processes[name])
            self.start((name,))
        return ended

    def kill(self, name: str) -> None:
        """SIGKILL to one component and all that it forked, as a lost machine would; `revive` brings it back."""
        self._end_session(self.processes[name])

    def wait_ready(self, seconds: float = 180.0, *, tick: Callable[[], None] = lambda: None) -> None:
        """Until all components report healthy. SystemExit with a component's log when it died, or after `seconds`."""
        deadline = time.monotonic() + seconds
        health: Mapping[str, Mapping[str, object]] = {}
        wanted = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
        while time.monotonic() < deadline:
            for name in self.dead():
                raise SystemExit(f"{name} ended; see {self.home / name}.log\n{_tail(self.home / f'{name}.log')}")
            try:
                with urllib.request.urlopen(f"{self.url}/api/v2/monitor/health", timeout=10) as answer:
                    health = json.load(answer)
            except (OSError, ValueError):
                pass
            else:
                if all(health[wanted[name]]["status"] == "healthy" for name in self.processes if name in wanted):
                    return
            tick()
            time.sleep(1.0)
        raise SystemExit(f"Airflow was not ready after {seconds:.0f} s: {json.dumps(health)}; logs are in {self.home}")

    def stop(self) -> None:
        """End every component and all that it forked: SIGTERM to the components, SIGKILL to what is left."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
        for process in self.processes.values():
            self._end_session(process)
        self.processes.clear()

    def _end_session(self, process: subprocess.Popen[bytes]) -> None:
        for left in _session(process.pid):
            if left != process.pid:
                _kill(left)
        process.kill()  # does nothing once it has been waited for: its pid may be anybody's by now
        process.wait()

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "airflow", *arguments]


def _session(leader: int) -> list[int]:
    """Processes of the session that `leader` began; task processes of the scheduler among them."""
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if entry.isdigit():
            try:
                if os.getsid(int(entry)) == leader:
                    found.append(int(entry))
            except OSError:  # it has just ended
                continue
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _tail(path: Path, lines: int = 25) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run until Ctrl-C or SIGTERM."""
    from mayfly.project.loading import Project

    parser = argparse.ArgumentParser(prog="mayfly.airflow.standalone", description="A whole Airflow on this machine.")
    parser.add_argument("--port", type=int, default=int(os.environ.get("MAYFLY_PORT", "8080")), help="of the UI")
    options = parser.parse_args(arguments)
    project = Project.find().home
    if not _is_free(options.port):
        raise SystemExit(f"port {options.port} is taken; choose another with --port or MAYFLY_PORT")
    home = Path(os.environ.get("AIRFLOW_HOME") or project / ".airflow")
    stack = Stack(home=home, project=project, port=options.port)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for ending in (signal.SIGINT, signal.SIGTERM):  # SIGINT is ignored in what a shell puts into the background
        signal.signal(ending, interrupt)
    code = 0
    try:
        print("preparing the database ...", flush=True)
        stack.migrate()
        print(f"starting {', '.join(COMPONENTS)} (logs: {home}/*.log) ...", flush=True)
        stack.start()
        stack.wait_ready()
        print(f"\n  Airflow    {stack.url}\n  user       {USER}\n  password   {stack.secrets['password']}\n")
        print("  Ctrl-C stops it.", flush=True)
        deaths = 0
        while deaths < MOST_DEATHS:
            time.sleep(1.0)
            for name in stack.revive():
                deaths += 1
                print(f"{name} ended by itself and was started again; see {home / name}.log", flush=True)
        print(f"components ended {deaths} times; giving up", flush=True)
        code = 1
    except KeyboardInterrupt:
        print("\nstopping ...", flush=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
        stack.stop()
    print("stopped; clusters of runs in progress end by themselves unless Airflow is back within their lease (10 min).")
    return code


if __name__ == "__main__":
    sys.exit(main())
