"""Staging on Cloud Storage (gs://), by Google's own client.

Not by gcsfs, which jobs use for their data: there a create whose answer was lost is sent again and then reads as
"somebody was first", and a dead store is noticed after minutes.

What is relied on, all documented by Google: reads after writes and listings are strongly consistent; a precondition
`ifGenerationMatch=0` lets exactly one creator win; an object appears whole; more than about one write a second of one
name is answered by 429, which is waited for. STORAGE_EMULATOR_HOST names a store in Google's place, as for Google's own
tools; there nobody needs credentials.
"""

from __future__ import annotations

import io
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from mayfly.errors import InputError, StoreRefused, StoreUnavailable
from mayfly.staging.google import emulator

if TYPE_CHECKING:
    from mayfly.staging.google import Access

PATIENCE = 20.0
"""Seconds for which one call is tried again before the store counts as unavailable (one try more may run over it)."""
CHUNK = 32 << 20
"""Bytes of a file that are sent, or of a stream that are fetched, by one request."""
_TIMEOUT = (5.0, 10.0)
"""Seconds for connecting, and without a byte."""
_WRITER = "mayfly-writer"
T = TypeVar("T")


class GcsStore:
    """A prefix of a bucket, as `access` sees it; None = anonymous. `endpoint` is in the place of Google's address.

    Threads may share it; after a fork the child gets connections of its own."""

    def __init__(
        self, url: str, access: Access | None = None, *, patience: float = PATIENCE, endpoint: str = ""
    ) -> None:
        self.name, _, self.root = url.rstrip("/").partition("://")[2].partition("/")
        if not self.name:
            raise InputError(f"staging {url!r} names no bucket; write gs://bucket/folder")
        self.url, self.access = url.rstrip("/"), access
        self._endpoint, self._patience = endpoint or emulator(), patience
        self._lock = threading.Lock()
        self._client: Any = None
        self._pid = 0
        self._seen = False
        """Whether the bucket has shown that it is there: "not found" then means the object."""

    # ------------------------------------------------------------ Store

    def get(self, path: str) -> bytes | None:
        return self._ask("read", path, lambda: bytes(self._blob(path).download_as_bytes(**self._how)))

    def put(self, path: str, data: bytes) -> None:
        self._write(path, lambda blob, how: blob.upload_from_string(data, _kind(path), **how))

    def create(self, path: str, data: bytes) -> bool:
        return self._create(path, lambda blob, how: blob.upload_from_string(data, _kind(path), **how))

    def list(self, prefix: str) -> list[str]:
        def names() -> list[str]:
            found = self._bucket().list_blobs(
                prefix=self._full(prefix), fields="items(name),nextPageToken", **self._how
            )
            return sorted(blob.name[len(self._full("")) :] for blob in found)

        return self._ask("list", prefix, names) or []

    def create_file(self, path: str, source: Path) -> bool:
        if not os.access(source, os.R_OK):
            raise StoreUnavailable(f"cannot read {source}, which was to become {self.url}/{path}")
        if self.size(path) is not None:
            return False
        return self._create(path, lambda blob, how: blob.upload_from_filename(str(source), _kind(path), **how))

    def open(self, path: str) -> BinaryIO | None:
        found = self._look(path)
        if found is None:
            return None
        return cast(BinaryIO, io.BufferedReader(_Stream(self, path, found)))

    def size(self, path: str) -> int | None:
        found = self._look(path)
        return None if found is None else int(found.size)

    def remove(self, path: str) -> None:
        self._ask("remove", path, lambda: self._blob(path).delete(**self._how))

    # ------------------------------------------------------------ writing

    def _create(self, path: str, send: Callable[[Any, dict[str, Any]], None]) -> bool:
        from google.api_core.exceptions import PreconditionFailed

        try:
            self._write(path, send, if_generation_match=0)
        except PreconditionFailed as error:
            # Perhaps it was we: the answer to an earlier try may have been lost on its way.
            found = self._look(path)
            return found is not None and (found.metadata or {}).get(_WRITER) == error.mayfly_writer  # type: ignore[attr-defined]
        return True

    def _write(self, path: str, send: Callable[[Any, dict[str, Any]], None], **condition: int) -> None:
        """The whole object; PreconditionFailed when the condition says that there is one already."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        blob = self._blob(path, chunk_size=CHUNK)
        blob.metadata = {_WRITER: secrets.token_hex(8)}
        blob.cache_control = "no-store"  # a bucket that everybody may read would be cached for an hour
        try:
            self._try("write", path, lambda: send(blob, {**self._how, "checksum": "md5", **condition}))
        except PreconditionFailed as error:
            error.mayfly_writer = blob.metadata[_WRITER]  # type: ignore[attr-defined]
            raise
        except NotFound as error:
            raise self._no_bucket("write", path, error) from error
        self._seen = True

    # ------------------------------------------------------------ asking

    def _ask(self, verb: str, path: str, call: Callable[[], T]) -> T | None:
        """The answer, None when there is no such object; StoreRefused when there is no such bucket."""
        from google.api_core.exceptions import NotFound

        try:
            answer = self._try(verb, path, call)
        except NotFound as error:
            self._require_bucket(verb, path, error)
            return None
        self._seen = True
        return answer

    def _require_bucket(self, verb: str, path: str, error: Exception) -> None:
        """An object that is not found may lack its bucket; a listing of nothing tells, once for a store."""
        from google.api_core.exceptions import NotFound

        if verb == "list" or "bucket does not exist" in str(error):
            raise self._no_bucket(verb, path, error) from error
        if self._seen:
            return
        nothing = self._full("no such object")
        try:
            self._try(verb, path, lambda: list(self._bucket().list_blobs(prefix=nothing, max_results=1, **self._how)))
        except NotFound as missing:
            raise self._no_bucket(verb, path, missing) from missing
        self._seen = True

    def _no_bucket(self, verb: str, path: str, error: Exception) -> StoreRefused:
        return StoreRefused(
            f"cannot {verb} {self.url}/{path}: {_text(error)}. There is no bucket {self.name!r}: make it, or correct "
            "`staging` of the target"
        )

    def _try(self, verb: str, path: str, call: Callable[[], T]) -> T:
        """What it returns. Lets NotFound and PreconditionFailed through; StoreRefused, CredentialsUnavailable when a
        person has to act, StoreUnavailable for anything else."""
        from google.api_core.exceptions import Forbidden, NotFound, PreconditionFailed, Unauthorized
        from google.auth.exceptions import GoogleAuthError, TransportError

        failed = f"cannot {verb} {self.url}/{path}"
        try:
            return call()
        except (NotFound, PreconditionFailed):
            raise
        except (Forbidden, Unauthorized) as error:
            raise StoreRefused(
                f"{failed}: {_text(error)}. Who runs this needs roles/storage.objectUser on the bucket {self.name} "
                "(docs/gcp.md); with 401 the credentials have expired or were withdrawn"
            ) from error
        except Exception as error:  # requests', urllib3's, the socket's own
            last = getattr(error, "cause", None) or error  # what a RetryError gave up on
            if isinstance(last, GoogleAuthError) and self.access is not None:
                if not isinstance(last, TransportError) and not last.retryable:
                    raise self.access.refused(last) from error
                raise StoreUnavailable(f"{failed}: no token for {self.access.who}: {_text(error)}") from error
            raise StoreUnavailable(f"{failed}: {_text(error)}") from error

    @property
    def _how(self) -> dict[str, Any]:
        from google.cloud.storage.retry import DEFAULT_RETRY

        patient = DEFAULT_RETRY.with_timeout(self._patience).with_delay(initial=0.2, maximum=5.0, multiplier=2.0)
        return {"retry": patient, "timeout": _TIMEOUT}

    def _look(self, path: str) -> Any | None:
        """The object's metadata, None when there is no such object."""

        def look() -> Any:
            blob = self._blob(path)
            blob.reload(**self._how)  # not get_blob: it takes a missing bucket for a missing object
            return blob

        return self._ask("read", path, look)

    def _blob(self, path: str, *, chunk_size: int | None = None) -> Any:
        return self._bucket().blob(self._full(path), chunk_size=chunk_size)

    def _bucket(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.auth.transport.requests import AuthorizedSession
        from google.cloud.storage import Client

        with self._lock:
            if self._client is None or self._pid != os.getpid():
                # It would ask for the bucket from a thread of its own, for traces that nobody reads.
                os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
                credentials: Any = self.access.google if self.access else cast(Any, AnonymousCredentials)()
                session = cast(Any, AuthorizedSession)(credentials)
                # A store on loopback is never behind a proxy; for Google's the usual variables hold.
                session.trust_env = not self._endpoint
                session.hooks["response"].append(_read_refusal)
                options = {"api_endpoint": self._endpoint} if self._endpoint else None
                # No call of ours names a project; without one the client would look for it on the network.
                self._client = Client(project="none", credentials=credentials, client_options=options, _http=session)
                self._pid = os.getpid()
            return self._client.bucket(self.name)

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}" if self.root else path


class _Stream(io.RawIOBase):
    """An object as it comes, piece by piece, each tried again like any other read."""

    def __init__(self, store: GcsStore, path: str, blob: Any) -> None:
        self._store, self._path, self._blob = store, path, blob
        self._at, self._piece = 0, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece and self._at < self._blob.size:
            self._piece = memoryview(self._next())
            self._at += len(self._piece)
        part = self._piece[: len(buffer)]
        buffer[: len(part)] = part
        self._piece = self._piece[len(part) :]
        return len(part)

    def _next(self) -> bytes:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        first, last = self._at, min(self._at + CHUNK, self._blob.size) - 1
        how = {**self._store._how, "checksum": None, "if_generation_match": self._blob.generation}
        blob = self._store._blob(self._path)  # not the one that was looked at: it names a host of the store's choice
        try:
            return self._store._try(
                "read", self._path, lambda: bytes(blob.download_as_bytes(start=first, end=last, **how))
            )
        except (NotFound, PreconditionFailed) as error:
            raise StoreUnavailable(
                f"cannot read {self._store.url}/{self._path}: it was removed or replaced meanwhile: {_text(error)}"
            ) from error


def _read_refusal(response: Any, *_: Any, **__: Any) -> None:
    """Google's client leaves an error's text unread in downloads, and the connection with it."""
    if response.status_code >= 400:
        response.content  # noqa: B018  (read, the connection serves the next request)


def _kind(path: str) -> str:
    """Content type: what people open in a browser is shown, everything else is bytes."""
    kinds = {".html": "text/html", ".json": "application/json", ".txt": "text/plain", ".log": "text/plain"}
    return kinds.get(os.path.splitext(path)[1], "application/octet-stream")


def _text(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:500]
