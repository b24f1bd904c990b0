"""The emulator as a subprocess, and its control API.

with Emulator(folder) as emulator:
    os.environ["DATAPROC_EMULATOR_HOST"] = emulator.host
    emulator.rule(on="CreateCluster", do="503", nth=1)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


class Emulator:
    """`options` become the command's: `create=0.5` is `--create 0.5`. `env` is added to the process's environment."""

    def __init__(
        self,
        folder: Path,
        *,
        machines: str = "none",
        node_options: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        **options: float | str,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "emulator.log"
        command = [sys.executable, "-m", "tests.emulators.dataproc", "serve", "--state", str(folder)]
        command += ["--machines", machines, "--until-eof", "--node-options", json.dumps(node_options or {})]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        path = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, **(env or {})},
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError(f"the emulator did not start:\n{self._log.read_text()[-3000:]}")
        ready = json.loads(line)
        self.host, self.rest = f"127.0.0.1:{ready['grpc']}", f"127.0.0.1:{ready['rest']}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Everything below it is gone when this returns. Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(240)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass

    # -- the control API

    def rule(self, *, on: str, do: str, **more: Any) -> str:
        """A fault by rule (faults.py); returns its id."""
        return str(self.ask("POST", "rules", {"on": on, "do": do, **more})["id"])

    def fired(self) -> dict[str, int]:
        return dict(self.ask("GET", "rules"))

    def remove_rule(self, rule: str) -> None:
        self.ask("DELETE", "rule", {"id": rule})

    def forget_rules(self) -> None:
        self.ask("DELETE", "rules")

    def node(self, cluster: str, node: str, do: str) -> None:
        """preempt, lose, cut or heal a node ("w-0")."""
        self.ask("POST", "node", {"cluster": cluster, "node": node, "do": do})

    def set_state(self, cluster: str, state: str, *, detail: str = "", substate: str = "UNSPECIFIED") -> None:
        self.ask("POST", "state", {"cluster": cluster, "state": state, "detail": detail, "substate": substate})

    def settings(self, **values: float) -> dict[str, Any]:
        return dict(self.ask("POST", "settings", values))

    def clusters(self) -> list[dict[str, Any]]:
        """All that hold machines."""
        return list(self.ask("GET", "clusters"))

    def history(self) -> list[dict[str, Any]]:
        """All that ever were."""
        return list(self.ask("GET", "history"))

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.ask("GET", "jobs"))

    def policies(self) -> list[str]:
        """Full names of autoscaling policies."""
        return list(self.ask("GET", "policies"))

    def calls(self) -> dict[str, dict[str, int]]:
        """verb -> code -> how often."""
        return dict(self.ask("GET", "calls"))

    def count(self, verb: str) -> int:
        return sum(self.calls().get(verb, {}).values())

    def log(self) -> list[dict[str, Any]]:
        return list(self.ask("GET", "log"))

    def forget_calls(self) -> None:
        self.ask("DELETE", "calls")

    def clear(self) -> None:
        """As if it had just been started."""
        self.ask("POST", "clear")

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://{self.rest}/emulator/{path}",
            data=json.dumps(body).encode() if body is not None else None,
            method=method,
        )
        try:
            with self._opener.open(request, timeout=240) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(json.loads(error.read())["error"]["message"]) from None
