"""The staging store: whole objects on any fsspec file system.

The run directory needs four operations: put a whole object, get it, list by prefix, and create-if-absent. Never append,
rename or modification times, and no listings cache: object stores lack the former and lie about the latter. Archives of
environments are too large for memory: they are created from a file and read as a stream.

An absent object is an answer (`None`); a store that cannot be asked is `StoreUnavailable`, never "absent".
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from mayfly.errors import StoreUnavailable, StoreUnsuitable

if TYPE_CHECKING:
    from mayfly.staging.google import Access


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

    def create_file(self, path: str, source: Path) -> bool:
        """`create` with the content of a local file, however large; nobody ever sees half of it."""

    def open(self, path: str) -> BinaryIO | None:
        """The object as a stream, None when there is none."""

    def size(self, path: str) -> int | None:
        """Bytes of the object, None when there is none."""

    def remove(self, path: str) -> None:
        """Absent = done. Only for what can be made again (`envs/`)."""


def open_store(url: str, *, access: Access | None = None) -> Store:
    """The store at an absolute URL ("file:///…", "gs://bucket/folder", "s3://…", "memory://…").

    `access` is for gs:// alone: who asks there; by default whoever this machine is to Google, nobody on an emulator.
    Who has a target calls `mayfly.staging.credentials.target_store`.
    """
    if url.startswith("file://"):
        return FileStore(url.removeprefix("file://"))
    if url.startswith(("gs://", "gcs://")):
        from mayfly.staging.gcs import GcsStore
        from mayfly.staging.google import ambient_access, emulator

        return GcsStore(url, access or (None if emulator() else ambient_access()))
    import fsspec  # the stores above need none of it: 0.1 s less for each poke

    try:
        filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise StoreUnsuitable(
            f"staging {url!r} cannot be used: {error}. Known are file://, gs:// and, with its package s3fs, s3://"
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

    def create_file(self, path: str, source: Path) -> bool:
        if (self.root / path).exists():
            return False
        try:
            self._bring(path, lambda beside: shutil.copyfile(source, beside), os.link)
        except FileExistsError:
            return False
        return True

    def open(self, path: str) -> BinaryIO | None:
        try:
            return (self.root / path).open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreUnavailable(f"cannot read {self.root / path}: {error}") from error

    def size(self, path: str) -> int | None:
        try:
            return (self.root / path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreUnavailable(f"cannot read {self.root / path}: {error}") from error

    def remove(self, path: str) -> None:
        try:
            (self.root / path).unlink(missing_ok=True)
        except NotADirectoryError:
            pass
        except OSError as error:
            raise StoreUnavailable(f"cannot remove {self.root / path}: {error}") from error

    def _write(self, path: str, data: bytes, into_place: Any) -> None:
        self._bring(path, lambda beside: beside.write_bytes(data), into_place)

    def _bring(self, path: str, write: Callable[[Path], object], into_place: Any) -> None:
        final = self.root / path
        beside = final.with_name(f".new-{secrets.token_hex(6)}")
        try:
            self._make_folder(final.parent)
            try:
                write(beside)
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
    """Any other fsspec file system whose `pipe_file(mode="create")` is atomic (s3, memory)."""

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
        return self._create(path, lambda full: self.fs.pipe_file(full, data, mode="create"))

    def _create(self, path: str, write: Callable[[str], object]) -> bool:
        try:
            write(self._full(path))
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

    def create_file(self, path: str, source: Path) -> bool:
        return self._create(path, lambda full: self.fs.put_file(str(source), full, mode="create"))

    def open(self, path: str) -> BinaryIO | None:
        try:
            return cast(BinaryIO, self.fs.open(self._full(path), "rb"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise StoreUnavailable(f"cannot read {self.url}/{path}: {error!r}") from error

    def size(self, path: str) -> int | None:
        try:
            return int(self.fs.info(self._full(path))["size"])
        except FileNotFoundError:
            return None
        except Exception as error:
            raise StoreUnavailable(f"cannot read {self.url}/{path}: {error!r}") from error

    def remove(self, path: str) -> None:
        try:
            self.fs.rm_file(self._full(path))
        except FileNotFoundError:
            pass
        except Exception as error:
            raise StoreUnavailable(f"cannot remove {self.url}/{path}: {error!r}") from error

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
