"""Staging on Cloud Storage (gs://), by its JSON API and nothing between.

Not by gcsfs, which jobs use for their data: there a create whose answer was lost is sent again and then reads as
"somebody was first", a dead store is noticed after minutes, and the API stands in for folders that do not exist.

What is relied on, all documented by Google: reads after writes and listings are strongly consistent; a precondition
`ifGenerationMatch=0` lets exactly one creator win; an object appears whole; more than about one write a second of one
name is answered by 429, which is waited for. STORAGE_EMULATOR_HOST names a store in Google's place, as for Google's own
tools; there nobody needs credentials.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import mimetypes
import os
import random
import secrets
import threading
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

from mayfly.errors import InputError, StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from mayfly.credentials import Access

PATIENCE = 20.0
"""Seconds for which one call is tried again before the store counts as unavailable (one try more may run over it)."""
SMALL = 8 << 20
"""Bytes up to which an object is sent in one request; above, by a resumable upload in chunks of as many bytes."""
_TIMEOUT = (5.0, 10.0)
"""Seconds for connecting, and without a byte."""
_LONGEST_PAUSE = 5.0
_WRITER = "mayfly-writer"
_AGAIN = {408, 429, 500, 502, 503, 504}


def emulator() -> str:
    """Address of the store that stands in for Google's, empty when none does."""
    host = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    return host if not host or "://" in host else f"http://{host}"


class GcsStore:
    """A prefix of a bucket, as `access` sees it; None = anonymous. `endpoint` is in the place of Google's address.

    Threads may share it; after a fork the child gets connections of its own."""

    def __init__(
        self, url: str, access: Access | None = None, *, patience: float = PATIENCE, endpoint: str = ""
    ) -> None:
        place = url.rstrip("/").partition("://")[2]
        self.bucket, _, self.root = place.partition("/")
        if not self.bucket:
            raise InputError(f"staging {url!r} names no bucket; write gs://bucket/folder")
        self.url = url.rstrip("/")
        other = endpoint or emulator()
        self._endpoint = other or "https://storage.googleapis.com"
        self._http = _Http(access, direct=bool(other))
        self._patience = patience
        self._objects = f"{self._endpoint}/storage/v1/b/{quote(self.bucket, safe='')}/o"
        self._uploads = f"{self._endpoint}/upload/storage/v1/b/{quote(self.bucket, safe='')}/o"
        self._seen = False
        """Whether the bucket has shown that it is there: "not found" then means the object."""

    # ------------------------------------------------------------ Store

    def get(self, path: str) -> bytes | None:
        answer = self._ask("read", path, "GET", self._address(path), params={"alt": "media"})
        return None if answer is None else bytes(answer.content)

    def put(self, path: str, data: bytes) -> None:
        self._send(path, data, {})

    def create(self, path: str, data: bytes) -> bool:
        return self._send(path, data, {"ifGenerationMatch": "0"})

    def list(self, prefix: str) -> list[str]:
        full = self._name(prefix)
        cut = len(self._name(""))
        names: list[str] = []
        page = ""
        while True:
            params = {"prefix": full, "fields": "items/name,nextPageToken", **({"pageToken": page} if page else {})}
            answer = self._ask("list", prefix, "GET", self._objects, params=params)
            said = {} if answer is None else answer.json()
            names += [item["name"][cut:] for item in said.get("items", ())]
            page = said.get("nextPageToken", "")
            if not page:
                return sorted(names)

    def create_file(self, path: str, source: Path) -> bool:
        try:
            if source.stat().st_size <= SMALL:
                return self.create(path, source.read_bytes())
            return False if self.size(path) is not None else self._send_file(path, source)
        except OSError as error:
            raise StoreUnavailable(f"cannot read {source}, which was to become {self.url}/{path}: {error}") from error

    def open(self, path: str) -> BinaryIO | None:
        answer = self._ask("read", path, "GET", self._address(path), params={"alt": "media"}, stream=True)
        return None if answer is None else cast(BinaryIO, io.BufferedReader(_Stream(self, path, answer), 1 << 20))

    def size(self, path: str) -> int | None:
        answer = self._ask("read", path, "GET", self._address(path), params={"fields": "size"})
        return None if answer is None else int(answer.json()["size"])

    def remove(self, path: str) -> None:
        self._ask("remove", path, "DELETE", self._address(path))

    # ------------------------------------------------------------ writing

    def _send(self, path: str, data: bytes, condition: Mapping[str, str]) -> bool:
        """The whole object in one request; False when the condition says that there is one already."""
        boundary = secrets.token_hex(16)
        about = self._about(path, data_md5=hashlib.md5(data, usedforsecurity=False).digest())
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(about)}\r\n"
            f"--{boundary}\r\nContent-Type: {about['contentType']}\r\n\r\n"
        )
        answer = self._call(
            "write", path, "POST", self._uploads,
            params={"uploadType": "multipart", "fields": "generation", **condition},
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            data=head.encode() + data + f"\r\n--{boundary}--\r\n".encode(),
        )  # fmt: skip
        if answer.status_code == 412 and condition:
            # Perhaps it was we: the answer to an earlier try may have been lost on its way.
            return answer.mayfly_tries > 1 and self._is_mine(path, about)
        self._require(answer, "write", path)
        self._seen = True
        return True

    def _send_file(self, path: str, source: Path) -> bool:
        """In chunks, each of which may be sent again; the object appears with the last one."""
        size = source.stat().st_size
        with source.open("rb") as file:
            about = self._about(path, data_md5=hashlib.file_digest(file, _md5).digest())
            begun = self._call(
                "write", path, "POST", self._uploads,
                params={"uploadType": "resumable", "ifGenerationMatch": "0"},
                headers={
                    "X-Upload-Content-Type": about["contentType"], "X-Upload-Content-Length": str(size),
                    "Content-Type": "application/json; charset=UTF-8",
                },
                data=json.dumps(about).encode(),
            )  # fmt: skip
            if begun.status_code == 412:
                return False
            self._require(begun, "write", path)
            session = begun.headers["Location"]
            try:
                answer = self._send_chunks(path, file, session, size)
            except BaseException:
                self._abandon(session)
                raise
        if answer.status_code == 412:
            return self._is_mine(path, about)
        if answer.status_code in (404, 410):
            raise StoreUnavailable(f"cannot write {self.url}/{path}: the store has forgotten the upload; begin anew")
        self._require(answer, "write", path)
        return True

    def _send_chunks(self, path: str, file: BinaryIO, session: str, size: int) -> Any:
        there, failures = 0, 0
        since = time.monotonic()
        while True:
            file.seek(there)
            chunk = file.read(SMALL)
            span = f"bytes {there}-{there + len(chunk) - 1}/{size}" if chunk else f"bytes */{size}"
            try:
                answer = self._http("PUT", session, headers={"Content-Range": span}, data=chunk)
                problem = f"{answer.status_code} {_text(answer)}"
                if answer.status_code not in _AGAIN | {308}:
                    return answer
            except _Broken as error:
                answer, problem = None, str(error)
            if answer is None or answer.status_code != 308:
                failures += 1
                self._pause(failures, since, f"cannot write {self.url}/{path}: {problem}")
                answer = self._call(  # what has arrived
                    "write", path, "PUT", session, headers={"Content-Range": f"bytes */{size}"}, data=b""
                )
                if answer.status_code != 308:
                    return answer
            arrived = answer.headers.get("Range", "")
            now = int(arrived.rpartition("-")[2]) + 1 if arrived else 0
            if now > there:
                there, failures, since = now, 0, time.monotonic()

    def _abandon(self, session: str) -> None:
        """Google forgets an unfinished upload after a week by itself."""
        for _ in range(2):  # a connection that was kept may have been closed at the other end
            try:
                self._http("DELETE", session)
                return
            except _Broken:
                continue

    def _about(self, path: str, *, data_md5: bytes) -> dict[str, Any]:
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        return {
            "name": self._name(path),
            "contentType": "application/octet-stream" if path.endswith(".gz") else kind,
            "cacheControl": "no-store",  # a bucket that everybody may read would be cached for an hour
            "md5Hash": base64.b64encode(data_md5).decode(),
            "metadata": {_WRITER: secrets.token_hex(8)},
        }

    def _is_mine(self, path: str, about: Mapping[str, Any]) -> bool:
        answer = self._ask("read", path, "GET", self._address(path), params={"fields": "metadata"})
        found = {} if answer is None else answer.json().get("metadata", {})
        return bool(found.get(_WRITER) == about["metadata"][_WRITER])

    # ------------------------------------------------------------ asking

    def _ask(self, verb: str, path: str, method: str, address: str, **asked: Any) -> Any | None:
        """The answer, None when there is no such object; StoreRefused when there is no such bucket."""
        answer = self._call(verb, path, method, address, **asked)
        if answer.status_code == 404:
            self._require_bucket(answer, verb, path)
            return None
        self._require(answer, verb, path)
        self._seen = True
        return answer

    def _require_bucket(self, answer: Any, verb: str, path: str) -> None:
        """An object that is not found may lack its bucket; a listing of nothing tells, once for a store."""
        if not self._seen:
            params = {"prefix": self._name("no such object"), "maxResults": "1", "fields": "kind"}
            answer = self._call("list", "", "GET", self._objects, params=params)
            self._require(answer, verb, path)
            self._seen = True
        elif "bucket does not exist" in _text(answer):
            self._require(answer, verb, path)

    def _call(self, verb: str, path: str, method: str, address: str, **asked: Any) -> Any:
        """The first answer that is one, tried again while there is patience. StoreUnavailable."""
        since = time.monotonic()
        for number in count(1):
            try:
                answer = self._http(method, address, **asked)
            except _Broken as error:
                problem, wait = str(error), 0.0
            else:
                if answer.status_code not in _AGAIN:
                    answer.mayfly_tries = number
                    return answer
                problem, wait = f"{answer.status_code} {_text(answer)}", float(answer.status_code == 429)
            self._pause(number, since, f"cannot {verb} {self.url}/{path}: {problem}", at_least=wait)
        raise AssertionError("unreachable: count() does not end")

    def _pause(self, failures: int, since: float, problem: str, *, at_least: float = 0.0) -> None:
        """Sleep before the next try, from 0.1 s doubling; StoreUnavailable when patience would be over by then."""
        pause = max(at_least, min(_LONGEST_PAUSE, 0.1 * 2 ** (failures - 1))) * random.uniform(1.0, 1.5)
        if time.monotonic() + pause - since > self._patience:
            raise StoreUnavailable(f"{problem} (tried {failures} times)")
        time.sleep(pause)

    def _require(self, answer: Any, verb: str, path: str) -> None:
        """StoreRefused when it is a refusal, StoreUnavailable when it is anything else that is no success."""
        status = answer.status_code
        if status < 300:
            return
        said = f"cannot {verb} {self.url}/{path}: {status} {_text(answer)}"
        if status == 404:
            raise StoreRefused(
                f"{said}. There is no bucket {self.bucket!r}: make it, or correct `staging` of the target"
            )
        if status in (401, 403):
            raise StoreRefused(
                f"{said}. Who runs this needs roles/storage.objectUser on the bucket {self.bucket} (docs/gcp.md); with "
                "401 the credentials have expired or were withdrawn"
            )
        raise StoreUnavailable(said)

    def _name(self, path: str) -> str:
        return f"{self.root}/{path}" if self.root else path

    def _address(self, path: str) -> str:
        return f"{self._objects}/{quote(self._name(path), safe='')}"


class _Broken(Exception):
    """No whole answer came."""


class _Http:
    """Requests with credentials; connections are kept, for one process."""

    def __init__(self, access: Access | None, *, direct: bool) -> None:
        self._access, self._direct = access, direct
        self._lock = threading.Lock()
        self._session: Any = None
        self._pid = 0

    def __call__(
        self,
        method: str,
        address: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        stream: bool = False,
    ) -> Any:
        import requests

        answer = None
        for fresh in (False, True):  # a token may be withdrawn before it expires
            sent = {"Accept-Encoding": "identity", **(headers or {})}
            try:
                if self._access:
                    self._access.authorise(sent, fresh=fresh)
                answer = self._own_session().request(
                    method, address, params=params, headers=sent, data=data, stream=stream, timeout=_TIMEOUT,
                    allow_redirects=False,
                )  # fmt: skip
            except (requests.RequestException, ConnectionError) as error:
                raise _Broken(f"{type(error).__name__}: {error}") from error
            if answer.status_code != 401 or not self._access:
                break
        return answer

    def _own_session(self) -> Any:
        import requests
        from requests.adapters import HTTPAdapter

        with self._lock:
            if self._session is None or self._pid != os.getpid():
                self._session, self._pid = requests.Session(), os.getpid()
                # A store on loopback is never behind a proxy; for Google's the usual variables hold.
                self._session.trust_env = not self._direct
                for scheme in ("https://", "http://"):
                    self._session.mount(scheme, HTTPAdapter(pool_maxsize=8, max_retries=0))
            return self._session


class _Stream(io.RawIOBase):
    """An object as it comes; where the line breaks, the rest of the same generation is asked for."""

    def __init__(self, store: GcsStore, path: str, answer: Any) -> None:
        self._store, self._path, self._answer = store, path, answer
        self._at, self._size = 0, int(answer.headers["Content-Length"])
        self._generation = answer.headers.get("X-Goog-Generation", "")
        self._left = 3
        """How often the line may still break."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                data = self._answer.raw.read(min(len(buffer), self._size - self._at))
                if data or self._at == self._size:
                    break
                problem = "the line broke off"
            except Exception as error:  # urllib3's and the socket's own
                problem = f"{type(error).__name__}: {error}"
            self._again(problem)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _again(self, problem: str) -> None:
        self._answer.close()
        self._left -= 1
        if self._left < 0:
            raise OSError(f"cannot read {self._store.url}/{self._path} beyond byte {self._at}: {problem}")
        self._answer = self._store._call(
            "read", self._path, "GET", self._store._address(self._path),
            params={"alt": "media", **({"generation": self._generation} if self._generation else {})},
            headers={"Range": f"bytes={self._at}-"}, stream=True,
        )  # fmt: skip
        if self._answer.status_code != 206:
            raise OSError(
                f"cannot read {self._store.url}/{self._path} beyond byte {self._at}: {self._answer.status_code}"
            )

    def close(self) -> None:
        self._answer.close()
        super().close()


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _text(answer: Any) -> str:
    """What an error says, in one line."""
    try:
        text = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        text = answer.text
    return " ".join(str(text).split())[:500]


__all__ = ["PATIENCE", "GcsStore", "emulator"]
