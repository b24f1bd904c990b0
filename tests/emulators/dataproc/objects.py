"""Objects by URI: gs:// through $STORAGE_EMULATOR_HOST where that is set, else in a folder of the emulator, so that it
needs nobody; file:// and plain paths on this host."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path


class Objects:
    """`folder` holds the buckets where no object store is named."""

    def __init__(self, folder: Path, host: str | None = None) -> None:
        self._folder = folder
        host = os.environ.get("STORAGE_EMULATOR_HOST", "") if host is None else host
        self._host = host.rstrip("/") if not host or "://" in host else f"http://{host}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read(self, uri: str) -> bytes:
        """FileNotFoundError where there is none; another OSError where nobody knows."""
        bucket, name = self._split(uri)
        if bucket is None or not self._host:
            return self._path(bucket, name).read_bytes()
        try:
            return self._ask(f"{self._host}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise FileNotFoundError(f"{uri}: not found") from error
            raise

    def write(self, uri: str, data: bytes) -> None:
        """A bucket that is not there is made."""
        bucket, name = self._split(uri)
        if bucket is None or not self._host:
            path = self._path(bucket, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{uuid.uuid4().hex}")  # an object is there whole or not at all
            beside.write_bytes(data)
            beside.replace(path)
            return
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        url = f"{self._host}/upload/storage/v1/b/{bucket}/o?{query}"
        try:
            self._ask(url, data)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            body = json.dumps({"name": bucket}).encode()
            self._ask(f"{self._host}/storage/v1/b?project=emulator", body, "application/json")
            self._ask(url, data)

    def _ask(self, url: str, data: bytes | None = None, kind: str = "application/octet-stream") -> bytes:
        request = urllib.request.Request(url, data=data, headers={"Content-Type": kind} if data is not None else {})
        with self._opener.open(request, timeout=240) as answer:
            return bytes(answer.read())

    @staticmethod
    def _split(uri: str) -> tuple[str | None, str]:
        if uri.startswith("gs://"):
            bucket, _, name = uri.removeprefix("gs://").partition("/")
            return bucket, name
        return None, uri.removeprefix("file://")

    def _path(self, bucket: str | None, name: str) -> Path:
        return Path(name) if bucket is None else self._folder / bucket / name
