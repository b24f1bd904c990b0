"""What a driver takes from the set-up of its node."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mayfly.driver.mayfly_worker import goes_away
from mayfly.driver.node import gateway_port, ready
from tests.driver.driving import Driving
from tests.processes import free_port

WAITS = """
import time
from pathlib import Path
print("here we are", flush=True)
while not Path({go!r}).exists():
    time.sleep(0.1)
"""


def test_the_first_driver_gets_the_port_that_the_gateway_shows(driving: Driving, tmp_path: Path) -> None:
    port = free_port()
    file, go = tmp_path / "ready.json", tmp_path / "go"
    file.write_text(json.dumps({"dashboard": port}))
    script = {"job.py": WAITS.format(go=str(go))}
    first = driving.start(script, environment={"MAYFLY_READY_FILE": str(file)})
    first.wait_for_line("here we are")
    second = driving.start(script, environment={"MAYFLY_READY_FILE": str(file)})
    second.wait_for_line("here we are")
    go.touch()
    assert (first.record().failure, second.record().failure) == (None, None)
    assert f"dashboard http://127.0.0.1:{port}/status" in first.log()
    assert "dashboard http://127.0.0.1:" in second.log() and f":{port}/" not in second.log()


@pytest.mark.parametrize("content", ["", "[]", "null", '{"dashboard": "8787"}', '{"dashboard": 99999}', "{}"])
def test_a_set_up_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    file = tmp_path / "ready.json"
    file.write_text(content)
    monkeypatch.setenv("MAYFLY_READY_FILE", str(file))
    assert gateway_port() == 0
    monkeypatch.setenv("MAYFLY_READY_FILE", str(tmp_path / "none"))
    assert ready() == {}


@pytest.mark.parametrize(
    ("notice", "said", "goes"), [("google", "TRUE", True), ("google", "FALSE", False), ("", "TRUE", False)]
)
def test_no_worker_starts_on_a_node_that_is_about_to_go(notice: str, said: str, goes: bool) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            right = (
                self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"] == "Google"
            )
            self.send_response(200 if right else 403)
            self.end_headers()
            self.wfile.write(said.encode() if right else b"")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        settings = {"env": {"GCE_METADATA_HOST": f"127.0.0.1:{server.server_address[1]}"}}
        assert goes_away(settings, {"notice": notice}) is goes
        server.shutdown()
        thread.join()
    assert goes_away({"env": {"GCE_METADATA_HOST": "127.0.0.1:1"}}, {"notice": "google"}) is False, "nobody answers"
