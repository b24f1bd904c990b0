"""One port for two things: the service over REST, with Google's paths and JSON, and the control API (/emulator/...)."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format

from tests.emulators.dataproc.control import Control
from tests.emulators.dataproc.errors import HTTP, ApiError, Cut, Hang
from tests.emulators.dataproc.service import Service

_PLACE = r"/v1/projects/(?P<project_id>[^/]+)/regions/(?P<region>[^/]+)"
_PARENT = r"/v1/(?P<{}>projects/[^/]+/(?:regions|locations)/[^/]+{})"
_POLICY, _OPERATION = "/autoscalingPolicies/[^/]+", "/operations/[^/:]+"
_ROUTES: list[tuple[str, str, str, str]] = [
    # method, path, verb, which field the body is ("*" = the request itself)
    ("POST", _PLACE + "/clusters", "CreateCluster", "cluster"),
    ("GET", _PLACE + "/clusters", "ListClusters", ""),
    ("GET", _PLACE + "/clusters/(?P<cluster_name>[^/:]+)", "GetCluster", ""),
    ("PATCH", _PLACE + "/clusters/(?P<cluster_name>[^/:]+)", "UpdateCluster", "cluster"),
    ("DELETE", _PLACE + "/clusters/(?P<cluster_name>[^/:]+)", "DeleteCluster", ""),
    ("POST", _PLACE + "/clusters/(?P<cluster_name>[^/:]+):diagnose", "DiagnoseCluster", "*"),
    ("POST", _PLACE + "/clusters/(?P<cluster_name>[^/:]+):stop", "StopCluster", "*"),
    ("POST", _PLACE + "/clusters/(?P<cluster_name>[^/:]+):start", "StartCluster", "*"),
    ("POST", _PLACE + "/jobs:submit", "SubmitJob", "*"),
    ("POST", _PLACE + "/jobs:submitAsOperation", "SubmitJobAsOperation", "*"),
    ("GET", _PLACE + "/jobs", "ListJobs", ""),
    ("GET", _PLACE + "/jobs/(?P<job_id>[^/:]+)", "GetJob", ""),
    ("PATCH", _PLACE + "/jobs/(?P<job_id>[^/:]+)", "UpdateJob", "job"),
    ("POST", _PLACE + "/jobs/(?P<job_id>[^/:]+):cancel", "CancelJob", "*"),
    ("DELETE", _PLACE + "/jobs/(?P<job_id>[^/:]+)", "DeleteJob", ""),
    ("POST", _PARENT.format("parent", "") + "/autoscalingPolicies", "CreateAutoscalingPolicy", "policy"),
    ("GET", _PARENT.format("parent", "") + "/autoscalingPolicies", "ListAutoscalingPolicies", ""),
    ("GET", _PARENT.format("name", _POLICY), "GetAutoscalingPolicy", ""),
    ("PUT", _PARENT.format("name", _POLICY), "UpdateAutoscalingPolicy", "policy"),
    ("DELETE", _PARENT.format("name", _POLICY), "DeleteAutoscalingPolicy", ""),
    ("GET", _PARENT.format("name", "/operations"), "ListOperations", ""),
    ("GET", _PARENT.format("name", _OPERATION), "GetOperation", ""),
    ("POST", _PARENT.format("name", _OPERATION) + ":cancel", "CancelOperation", ""),
    ("DELETE", _PARENT.format("name", _OPERATION), "DeleteOperation", ""),
]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, service: Service, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.service, self.control = service, Control(service)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away in mid-answer: no news."""


def serve(service: Service, port: int) -> Server:
    server = Server(service, port)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
    return server


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def _do(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if url.path.startswith("/emulator/"):
                body = json.loads(data) if data else {}
                self._answer(200, self.server.control.answer(self.command, url.path.removeprefix("/emulator/"), body))
                return
            pb = self.server.service.call(*self._request(url, data))
            self._answer(200, json_format.MessageToDict(pb))
        except ApiError as error:
            self._error(error)
        except (KeyError, ValueError, TypeError) as error:
            self._error(ApiError("INVALID_ARGUMENT", f"{type(error).__name__}: {error}"))
        except Hang as hang:
            self._hang(hang.seconds)
            self._error(ApiError("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."))
        except Cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do

    def _request(self, url: urllib.parse.SplitResult, data: bytes) -> tuple[str, Any]:
        """(verb, request message)."""
        path = urllib.parse.unquote(url.path)
        for method, pattern, verb, body in _ROUTES:
            found = re.fullmatch(pattern, path)
            if not found or method != self.command:
                continue
            values: dict[str, Any] = {
                name: value for name, value in urllib.parse.parse_qsl(url.query) if not name.startswith("$")
            }
            given = json.loads(data) if data else {}
            if body == "*":
                values |= given
            elif body:
                values[body] = given
            message = self.server.service.verbs[verb][0]()
            try:
                json_format.ParseDict(values | found.groupdict(), message, ignore_unknown_fields=False)
            except json_format.ParseError as error:
                if verb != "UpdateAutoscalingPolicy":
                    raise ApiError("INVALID_ARGUMENT", f"Invalid JSON payload received. {error}") from error
                json_format.ParseDict({"policy": given}, message)
                message.policy.name = found["name"]
            return verb, message
        raise ApiError("NOT_FOUND", f"{self.command} {url.path}: there is no such method.")

    def _answer(self, code: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, error: ApiError) -> None:
        code = HTTP[error.status]
        self._answer(code, {"error": {"code": code, "message": error.message, "status": error.code}})

    def _hang(self, seconds: float) -> None:
        """Until the client has gone."""
        deadline = time.monotonic() + seconds
        self.connection.settimeout(0.1)
        while time.monotonic() < deadline:
            try:
                if not self.connection.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.connection.settimeout(None)

    def log_message(self, format: str, *args: Any) -> None:
        """Calls are in the service's own log."""
