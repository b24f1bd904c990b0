"""A ResourceManager on loopback that knows the applications it is given, and what was done to them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mayfly.yarn.http import Http
from mayfly.yarn.resource_manager import ResourceManager


class Yarn:
    """`tags` by the id of an application, `leaving` the nodes that are being decommissioned (host:port of their pages);
    `killed` and `lifetimes` (seconds from when they were set) are what came."""

    def __init__(self, tags: dict[str, Sequence[str]], url: str) -> None:
        self.tags, self.url = tags, url
        self.leaving: list[str] = []
        self.killed: list[str] = []
        self.lifetimes: list[float] = []
        self.renewed = threading.Semaphore(0)

    def manager(self) -> ResourceManager:
        return ResourceManager(http=Http([self.url], user="me"), hosts=(), site=Path(), user="me")

    def told(self, app_id: str) -> dict[str, Any]:
        state = "KILLED" if app_id in self.killed else "RUNNING"
        return {"id": app_id, "state": state, "finalStatus": state, "applicationTags": ",".join(self.tags[app_id])}


@contextmanager
def yarn(tags: dict[str, Sequence[str]]) -> Iterator[Yarn]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = self.path.partition("?")[0].removeprefix("/ws/v1/cluster/")
            if place == "apps":
                left = [known.told(app_id) for app_id in known.tags if app_id not in known.killed]
                self._say({"apps": {"app": left}})
            elif place.startswith("apps/"):
                self._say({"app": known.told(place.removeprefix("apps/"))})
            elif place == "nodes":
                nodes = [
                    {"id": at, "nodeHostName": at.partition(":")[0], "nodeHTTPAddress": at} for at in known.leaving
                ]
                self._say({"nodes": {"node": [{**node, "state": "DECOMMISSIONING"} for node in nodes]}})
            else:
                self._say({})

        def do_PUT(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            app_id, what = self.path.partition("?")[0].removeprefix("/ws/v1/cluster/apps/").split("/")
            if what == "state":
                known.killed.append(app_id)
            else:
                until = datetime.strptime(asked["timeout"]["expiryTime"], "%Y-%m-%dT%H:%M:%S.%f%z")
                known.lifetimes.append(until.timestamp() - time.time())
                known.renewed.release()
            self._say({})

        def _say(self, told: dict[str, Any]) -> None:
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        known = Yarn(tags, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield known
        finally:
            server.shutdown()
            thread.join()
