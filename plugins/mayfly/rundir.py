"""The run directory on any fsspec store: the only thing that orchestrator and cluster share.

Only four operations are used: put a whole object, get it, list by prefix, and create-if-absent. Never append, rename or
modification times, and no listings cache: object stores lack the former and lie about the latter.

An absent object is an answer (`None`); a store that cannot be asked is `StoreUnavailable`, never "absent".
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mayfly.contract import (
    Ack,
    Closing,
    CreateCall,
    CreateReturn,
    Deleting,
    JobOrder,
    Lease,
    Plan,
    Receipt,
    Record,
    Status,
    decode,
    encode,
)
from mayfly.errors import ContractError, StoreUnavailable, StoreUnsuitable

T = TypeVar("T")


class Store(Protocol):
    """Whole objects under one root. Paths are relative, with forward slashes."""

    url: str

    def get(self, path: str) -> bytes | None:
        """The object, or None when there is none. StoreUnavailable when that cannot be known."""

    def put(self, path: str, data: bytes) -> None:
        """Write the whole object, replacing what is there."""

    def create(self, path: str, data: bytes) -> bool:
        """Write the object only if there is none: True = written, False = somebody was first."""

    def list(self, prefix: str) -> list[str]:
        """Paths of all objects that start with `prefix`, sorted. A list may lag behind; a get does not."""


def open_store(url: str, **storage_options: Any) -> Store:
    """The store at an absolute fsspec URL ("file:///…", "gs://bucket/folder", "s3://…", "memory://…")."""
    if url.startswith("file://"):
        return FileStore(url.removeprefix("file://"))
    import fsspec  # the local store needs none of it: 0.1 s less for each poke

    options = {"use_listings_cache": False, **storage_options}
    try:
        filesystem, root = fsspec.core.url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise StoreUnsuitable(
            f"staging {url!r} cannot be used: {error}. Known are file://, and with their packages installed gs:// "
            "(gcsfs) and s3:// (s3fs)"
        ) from error
    return FsspecStore(filesystem, root, url=url)


class FileStore:
    """A folder. Objects appear whole: written beside their place and linked into it."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.url = f"file://{self.root}"

    def get(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreUnavailable(f"cannot read {self.root / path}: {error}") from error

    def put(self, path: str, data: bytes) -> None:
        self._write(path, data, os.replace)

    def create(self, path: str, data: bytes) -> bool:
        if (self.root / path).exists():
            return False
        try:
            self._write(path, data, os.link)
        except FileExistsError:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        folder = self.root / prefix if prefix.endswith("/") or not prefix else (self.root / prefix).parent
        found: list[str] = []
        for parent, _, names in os.walk(folder):
            below = Path(parent).relative_to(self.root)
            found += [(below / name).as_posix() for name in names if not name.startswith(".new-")]
        return sorted(name for name in found if name.startswith(prefix))

    def _write(self, path: str, data: bytes, into_place: Any) -> None:
        final = self.root / path
        beside = final.with_name(f".new-{secrets.token_hex(6)}")
        try:
            self._make_folder(final.parent)
            try:
                beside.write_bytes(data)
                into_place(beside, final)
            finally:
                beside.unlink(missing_ok=True)
        except FileExistsError:
            raise
        except OSError as error:
            raise StoreUnavailable(f"cannot write {final}: {error}") from error

    @staticmethod
    def _make_folder(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # a file is in the way; it must not read as "the object exists"
            raise NotADirectoryError(f"{error.filename} is no folder") from error


class FsspecStore:
    """Any other fsspec file system whose `pipe_file(mode="create")` is atomic (gs, s3, memory)."""

    def __init__(self, filesystem: Any, root: str, *, url: str) -> None:
        self.fs, self.root, self.url = filesystem, root.rstrip("/"), url.rstrip("/")

    def get(self, path: str) -> bytes | None:
        try:
            return bytes(self.fs.cat_file(self._full(path)))
        except FileNotFoundError:
            return None
        except Exception as error:  # fsspec lets each store's own exception types through
            raise StoreUnavailable(f"cannot read {self.url}/{path}: {error!r}") from error

    def put(self, path: str, data: bytes) -> None:
        try:
            self.fs.pipe_file(self._full(path), data)
        except Exception as error:
            raise StoreUnavailable(f"cannot write {self.url}/{path}: {error!r}") from error

    def create(self, path: str, data: bytes) -> bool:
        try:
            self.fs.pipe_file(self._full(path), data, mode="create")
        except FileExistsError:
            return False
        except (TypeError, NotImplementedError) as error:
            raise StoreUnsuitable(
                f"{self.url} has no create-if-absent ({error}); use a file, gs:// or s3:// store for staging"
            ) from error
        except Exception as error:
            raise StoreUnavailable(f"cannot write {self.url}/{path}: {error!r}") from error
        return True

    def list(self, prefix: str) -> list[str]:
        folder = prefix.rpartition("/")[0]
        try:
            found: Iterable[str] = self.fs.find(self._full(folder))
        except FileNotFoundError:
            return []
        except Exception as error:
            raise StoreUnavailable(f"cannot list {self.url}/{prefix}: {error!r}") from error
        names = (str(name).removeprefix(self.root).lstrip("/") for name in found)
        return sorted(name for name in names if name.startswith(prefix))

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root


def require_create_if_absent(store: Store) -> None:
    """StoreUnsuitable when the store lets a second creator win (some silently ignore the condition)."""
    probe = f"probe/{secrets.token_hex(8)}"
    if not store.create(probe, b"1") or store.create(probe, b"2") or store.get(probe) != b"1":
        raise StoreUnsuitable(
            f"{store.url} does not keep create-if-absent: two writers of one object both succeeded. "
            "Use a file, gs:// or s3:// store for staging"
        )


class RunDir:
    """`runs/<cluster name>/` of a staging store: typed access to its files. Holds no state of its own."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.root = store, name, f"runs/{name}"

    @property
    def url(self) -> str:
        return f"{self.store.url}/{self.root}"

    # -- whole files

    def read(self, cls: type[T], path: str) -> T | None:
        """The object at `path`, None when absent. ContractError when it is damaged."""
        data = self.store.get(f"{self.root}/{path}")
        return None if data is None else decode(cls, data, where=f"{self.url}/{path}")

    def create(self, path: str, value: object) -> bool:
        return self.store.create(f"{self.root}/{path}", encode(value))

    def put(self, path: str, value: object) -> None:
        self.store.put(f"{self.root}/{path}", encode(value))

    # -- the cluster's files

    def plan(self) -> Plan | None:
        return self.read(Plan, "plan.json")

    def calls(self) -> list[tuple[CreateCall, CreateReturn | None]]:
        """All create calls that were announced, oldest first, each with its return if that is known."""
        found: list[tuple[CreateCall, CreateReturn | None]] = []
        while (call := self.read(CreateCall, f"calls/{len(found) + 1}.json")) is not None:
            found.append((call, self.read(CreateReturn, f"calls/{len(found) + 1}.done.json")))
        return found

    def closing(self) -> Closing | None:
        return self.read(Closing, "closing.json")

    def deleting(self) -> Deleting | None:
        return self.read(Deleting, "deleting.json")

    def receipt(self) -> Receipt | None:
        return self.read(Receipt, "receipt.json")

    # -- jobs

    def jobs(self) -> list[str]:
        """Keys of all jobs that have an attempt, sorted."""
        paths = self.store.list(f"{self.root}/jobs/")
        return sorted({path.removeprefix(f"{self.root}/jobs/").split("/")[0] for path in paths})

    def last_attempt(self, job: str) -> int:
        """Highest attempt that has a job.json, 0 when there is none. Asks by name, since lists may lag."""
        attempt = 0
        while self.store.get(f"{self.root}/jobs/{job}/{attempt + 1}/job.json") is not None:
            attempt += 1
        return attempt

    def attempt(self, job: str, attempt: int) -> AttemptDir:
        return AttemptDir(self, job, attempt)


class AttemptDir:
    """`jobs/<job>/<attempt>/`: one attempt of one job."""

    def __init__(self, rundir: RunDir, job: str, attempt: int) -> None:
        self.rundir, self.job, self.number = rundir, job, attempt
        self.store = rundir.store
        self.path = f"{rundir.root}/jobs/{job}/{attempt}"

    @property
    def url(self) -> str:
        return f"{self.store.url}/{self.path}"

    def read(self, cls: type[T], name: str) -> T | None:
        data = self.store.get(f"{self.path}/{name}")
        return None if data is None else decode(cls, data, where=f"{self.url}/{name}")

    def create(self, name: str, value: object) -> bool:
        return self.store.create(f"{self.path}/{name}", encode(value))

    def put(self, name: str, value: object) -> None:
        self.store.put(f"{self.path}/{name}", encode(value))

    def order(self) -> JobOrder | None:
        return self.read(JobOrder, "job.json")

    def lease(self) -> Lease | None:
        """None also when half-written: a lease is a hint and is written anew at the next poll."""
        return self._hint(Lease, "lease.json")

    def status(self) -> Status | None:
        return self._hint(Status, "status.json")

    def record(self) -> Record | None:
        return self.read(Record, "record.json")

    def ack(self) -> Ack | None:
        return self.read(Ack, "ack.json")

    def log_segment(self, number: int) -> bytes | None:
        """Output of script and workers, segment `number` (from 0); immutable once there."""
        return self.store.get(f"{self.path}/log/{number:06d}.txt")

    def metrics_segment(self, number: int) -> bytes | None:
        """Time series as JSON lines, segment `number` (from 0)."""
        return self.store.get(f"{self.path}/metrics/{number:06d}.jsonl")

    def _hint(self, cls: type[T], name: str) -> T | None:
        try:
            return self.read(cls, name)
        except ContractError:
            return None
