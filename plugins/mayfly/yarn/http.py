"""Questions to one of several ResourceManagers, over HTTP. `Http` remembers which one answered."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from mayfly.errors import YarnRefused, YarnUnavailable

TIMEOUT = 10.0
"""Seconds a ResourceManager has for one answer."""
LARGEST_ANSWER = 64 << 20
KERBEROS = "{page} demands Kerberos, which Mayfly's launcher yarn does not speak yet"


class NotThere(YarnUnavailable):
    """404: the ResourceManager answers and does not know it. Where it must know, it is not yet what it will be."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A standby sends its callers on to the active one; we know that one's own address, and a PUT would not follow."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Http:
    """`pages` are the addresses of all members ("http://host:8088"). `user` is told as Hadoop's "simple" login does:
    an anonymous reader sees neither times nor reasons of a user's application where access is checked."""

    def __init__(self, pages: list[str], *, user: str, timeout: float = TIMEOUT) -> None:
        self._pages, self._user, self._timeout = list(pages), user, timeout
        self._lock = threading.Lock()
        self._clock: tuple[float, float] | None = None
        context = ssl.create_default_context()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
        )

    @property
    def base(self) -> str:
        return self._pages[0]

    def now(self) -> float | None:
        """The ResourceManager's time; None before its first answer."""
        clock = self._clock
        return None if clock is None else clock[0] + time.monotonic() - clock[1]

    def get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path, None)

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("PUT", path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        """YarnUnavailable when none of them answers; YarnRefused with its words when one refuses; NotThere."""
        said = []
        for page in list(self._pages):
            try:
                answer = self._ask_one(page, method, path, body)
            except (OSError, ValueError, http.client.HTTPException) as error:  # URLError, timeouts, broken answers
                said.append(f"{page}: {_reason(error)}")
                continue
            with self._lock:
                if self._pages[0] != page:
                    self._pages.remove(page)
                    self._pages.insert(0, page)
            return answer
        raise YarnUnavailable(f"the ResourceManager does not answer ({'; '.join(said)})")

    def _ask_one(self, page: str, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        url = f"{page}{path}{'&' if '?' in path else '?'}user.name={quote(self._user)}"
        headers = {"Accept": "application/json", "Content-Type": "application/json", "X-Requested-By": "mayfly"}
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                data = answer.read(LARGEST_ANSWER)
                self._set_clock(answer.headers.get("Date"))
        except urllib.error.HTTPError as error:
            with error:
                text = _words(error.read(1 << 16))
                if "negotiate" in str(error.headers.get("WWW-Authenticate", "")).lower():
                    raise YarnRefused(KERBEROS.format(page=page)) from error
            if error.code == 404:
                raise NotThere(f"{page} does not know {path}: {text or 'HTTP 404'}") from error
            if error.code in (400, 401, 403):
                raise YarnRefused(
                    f"the ResourceManager refuses {method} {path} to user {self._user!r}: {text}"
                ) from error
            raise OSError(f"HTTP {error.code} {text}".strip()) from error
        if not data.strip():
            return {}
        if data.lstrip()[:1] != b"{":  # a standby, or a page of a proxy in between
            raise ValueError(f"no JSON but {data[:80].decode('utf-8', 'replace')!r}")
        decoded = json.loads(data)
        return decoded if isinstance(decoded, dict) else {}

    def _set_clock(self, date: str | None) -> None:
        if date:
            try:
                self._clock = parsedate_to_datetime(date).timestamp(), time.monotonic()
            except ValueError:
                pass


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error or type(error).__name__)


def _words(data: bytes) -> str:
    """What YARN says in an error, without its class names."""
    try:
        told = json.loads(data)["RemoteException"]
        return str(told.get("message") or told.get("exception"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
