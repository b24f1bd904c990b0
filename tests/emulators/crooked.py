"""A line to an object store that can be told to break: a proxy on loopback with faults by rule, and a note of every
request. Resumable uploads end at the proxy, which keeps to Google's protocol: it says how much has arrived, also when
the line broke in the middle of a chunk (fake-gcs-server takes that question for the end of the upload)."""

from __future__ import annotations

import http.client
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(kw_only=True)
class Fault:
    """What happens to the next `times` requests of this method whose address holds `where`.

    "cut" = the line breaks instead of an answer; "half" = in the middle of it; "hang" = no answer until the line is
    closed; a number = that status. `after`: the server has done what was asked. `body` goes with a status."""

    method: str
    where: str
    what: str | int
    times: int = 1
    after: bool = False
    body: bytes = b""


@dataclass(kw_only=True)
class Session:
    """A resumable upload: https://cloud.google.com/storage/docs/performing-resumable-uploads"""

    about: bytes
    kind: str
    """Content type of the object."""
    address: str
    """Of the whole object, with its conditions."""
    data: bytearray = field(default_factory=bytearray)
    end: tuple[int, Any, bytes] | None = None


@dataclass(kw_only=True)
class Line:
    """What tests see of the proxy."""

    url: str
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, address and headers of each request."""
    more_query: str = ""
    """Added to every address."""
    sessions: dict[str, Session] = field(default_factory=dict)

    def fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and fault.where in path:
                fault.times -= 1
                return fault
        return None


@contextmanager
def crooked(server: str) -> Iterator[Line]:
    """A proxy in front of `server` (http://host:port)."""
    behind = server.removeprefix("http://")
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            line.asked.append((self.command, self.path, dict(self.headers)))
            fault = line.fault(self.command, self.path)
            body = self.rfile.read(length // 2 if fault and fault.what == "cut" and not fault.after else length)
            if fault and not fault.after:
                if fault.what == "cut" and "upload_id" in self.path:
                    self.upload(body)
                return self.spoil(fault)
            status, headers, data = self.upload(body) if "uploadType=resumable" in self.path else self.forward(body)
            if fault and fault.what != "half":
                return self.spoil(fault)
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value.replace(server, line.url))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if fault else data)
            self.close_connection = bool(fault)

        def upload(self, body: bytes) -> tuple[int, Any, bytes]:
            known = re.search(r"upload_id=(\w+)", self.path)
            if known is None:
                name = uuid.uuid4().hex
                whole = self.path.replace("uploadType=resumable", "uploadType=multipart")
                kind = self.headers.get("X-Upload-Content-Type", "application/octet-stream")
                line.sessions[name] = Session(about=body, kind=kind, address=whole)
                return 200, {"Location": f"{line.url}{self.path}&upload_id={name}"}, b""
            session = line.sessions[known[1]]
            if self.command == "DELETE":
                del line.sessions[known[1]]
                return 499, {}, b""
            if session.end:
                return session.end
            first, last, total = re.fullmatch(  # type: ignore[union-attr]
                r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", self.headers["Content-Range"]
            ).groups()
            if first is not None:
                known_already = len(session.data) - int(first)
                if known_already < 0:
                    return 400, {}, b"not where the upload is"
                complete = len(body) == int(last) - int(first) + 1
                arrived = body if complete else body[: len(body) // 262144 * 262144]
                session.data += arrived[known_already:]  # what is there already is ignored
            if len(session.data) == int(total):
                parts = (b"application/json", session.about), (session.kind.encode(), bytes(session.data))
                mixed = b"".join(b"--x\r\nContent-Type: %s\r\n\r\n%s\r\n" % part for part in parts) + b"--x--\r\n"
                del self.headers["Content-Type"]
                self.headers["Content-Type"] = 'multipart/related; boundary="x"'
                session.end = self.forward(mixed, method="POST", path=session.address)
                return session.end
            return 308, {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}, b""

        def forward(self, body: bytes, *, method: str = "", path: str = "") -> tuple[int, Any, bytes]:
            there = http.client.HTTPConnection(behind, timeout=30)
            try:
                path = path or self.path
                path += f"{'&' if '?' in path else '?'}{line.more_query}" if line.more_query else ""
                left_out = ("host", "content-length", "content-range")
                headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
                there.request(method or self.command, path, body=body, headers=headers)
                answer = there.getresponse()
                return answer.status, answer.headers, answer.read()
            finally:
                there.close()

        def spoil(self, fault: Fault) -> None:
            self.close_connection = True
            if fault.what == "hang":
                closing.wait(30)
            elif isinstance(fault.what, int):
                self.send_response(fault.what)
                self.send_header("Content-Length", str(len(fault.body)))
                self.end_headers()
                self.wfile.write(fault.body)

        do_GET = do_PUT = do_POST = do_DELETE = answer

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:  # whoever asked has gone
            pass

    proxy = Server(("127.0.0.1", 0), Handler)
    line = Line(url=f"http://127.0.0.1:{proxy.server_address[1]}")
    serving = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    serving.start()
    try:
        yield line
    finally:
        closing.set()
        proxy.shutdown()
        proxy.server_close()
        serving.join()
