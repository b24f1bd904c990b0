"""A node that its cloud takes away: told some seconds before, its worker leaves with its results, and nothing counts.

The metadata server is a small one of ours, and both nodes of this Hadoop are one machine: whoever asks first is told.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mayfly.contract import Outcome
from scripts.hadoop import Hadoop
from tests.driver.driving import Driving
from tests.yarn.test_life import gone, start

pytestmark = pytest.mark.timeout(1800)

HOLDS_RESULTS = """
import time
from pathlib import Path
from dask.distributed import Client, wait

def f(i):
    time.sleep(0.02)
    with open(Path({folder!r}) / f"ran-{{i}}", "a") as file:
        file.write("x")
    return i

client = Client()
client.wait_for_workers(2)
futures = client.map(f, range(200))
wait(futures)
print("HOLDING", flush=True)
go = Path({folder!r}) / "go"
while not go.exists():
    time.sleep(0.1)
client.wait_for_workers(2)
print("SUM", sum(client.gather(futures)), flush=True)
"""


class Metadata:
    """instance/preempted, for one client: the first that waits for a change after `notice` was set."""

    def __init__(self) -> None:
        self.notice = threading.Event()
        self.told = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                waits = "wait_for_change" in parse_qs(urlsplit(self.path).query)
                if waits and outer.notice.wait(20) and outer.told.acquire(blocking=False):
                    return self._answer(b"TRUE", "after")
                self._answer(b"FALSE", "before")

            def _answer(self, text: bytes, etag: str) -> None:
                right = self.headers.get("Metadata-Flavor") == "Google"
                self.send_response(200 if right else 403)
                self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True)
        self.thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    metadata = Metadata()
    yield metadata
    metadata.notice.set()
    metadata.server.shutdown()
    metadata.server.server_close()
    metadata.thread.join()


def test_a_worker_leaves_in_time_and_nothing_is_computed_twice(
    hadoop: Hadoop, driving: Driving, metadata: Metadata, tmp_path: Path
) -> None:
    ready, folder = tmp_path / "ready.json", tmp_path / "files"
    folder.mkdir()
    ready.write_text(json.dumps({"notice": "google"}))
    env = {"MAYFLY_READY_FILE": str(ready), "GCE_METADATA_HOST": metadata.host}
    drive = start(driving, hadoop, HOLDS_RESULTS.format(folder=str(folder)), env=env)
    drive.wait_for_line("HOLDING")
    metadata.notice.set()
    drive.wait_for_line("is about to be taken away (preempted)")
    drive.wait_for_line("with its results")
    (folder / "go").touch()
    record = drive.record()
    assert record.outcome is Outcome.SUCCESS, drive.log()
    assert "SUM 19900" in drive.log()
    assert {path.read_text() for path in folder.glob("ran-*")} == {"x"}, "no task ran twice"
    assert record.workers_lost == 0
    assert record.yarn is not None
    assert (record.yarn.containers_started, record.yarn.containers_failed) == (3, 0)
    gone(hadoop)
    modes = {(folder / name).stat().st_mode for name in ("ran-1", "go")}
    assert len(modes) == 1, "what tasks write is not locked up more than this process's own files"
