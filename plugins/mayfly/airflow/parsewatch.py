"""Watches what a DAG file does while it is read, by Python's audit events: what really happens, not what it looks like.

Blind for what C libraries do by themselves, such as gRPC's connections; their import is refused, and time is counted.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Collection
from functools import cache
from types import FrameType
from typing import Any

from mayfly.daglint.facts import Deed

HEAVY = frozenset(
    """
    dask distributed pandas numpy pyarrow polars duckdb scipy sklearn torch tensorflow xgboost lightgbm matplotlib
    google.cloud google.auth googleapiclient boto3 botocore azure snowflake pyspark ray fsspec gcsfs s3fs bokeh skein
    """.split()  # noqa: SIM905 - a table reads better
)
_HARMLESS = ("/dev/", "/proc/", "/sys/")
_INSTALLED = tuple(
    os.path.join(path, "")
    for path in {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def _first(args: tuple[Any, ...]) -> str:
    return os.fsdecode(args[0]) if args and isinstance(args[0], (str, bytes, os.PathLike)) else ""


def _connects(args: tuple[Any, ...]) -> str:
    address = args[1]
    return f"connects to {':'.join(map(str, address[:2]))}" if isinstance(address, tuple) else f"connects to {address}"


def _starts(args: tuple[Any, ...]) -> str:
    return f"starts {_first(args) or 'a program'}"


def _path(what: str) -> Callable[[tuple[Any, ...]], str]:
    return lambda args: f"{what} {_first(args)}" if isinstance(args[0], (str, bytes, os.PathLike)) else ""


def _opens(args: tuple[Any, ...]) -> str:
    path, mode, flags = args
    if isinstance(path, int):
        return ""  # a descriptor: somebody opened it before
    writes = set(mode) & set("wax+") if isinstance(mode, str) else (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    return f"writes {_first(args)}" if writes else ""


_EVENTS: dict[str, Callable[[tuple[Any, ...]], str]] = {
    "socket.connect": _connects,
    "socket.sendto": _connects,
    "socket.getaddrinfo": lambda args: f"looks up the host {args[0]}" if args[0] else "",
    "socket.gethostbyname": lambda args: f"looks up the host {args[0]}",
    "subprocess.Popen": _starts,
    "os.posix_spawn": _starts,
    "os.exec": _starts,
    "os.system": _starts,
    "os.fork": lambda args: "forks",
    "os.forkpty": lambda args: "forks",
    "open": _opens,
    "os.mkdir": _path("makes the folder"),
    "os.remove": _path("removes"),
    "os.rmdir": _path("removes"),
    "os.rename": _path("renames"),
    "os.link": _path("makes a link to"),
    "os.symlink": _path("makes a link to"),
    "os.truncate": _path("writes"),
    "os.chmod": _path("changes the rights of"),
    "sqlite3.connect": _path("opens the database"),
}


class Watch:
    """Everything that `file` does from now on in this process; audit hooks cannot be removed."""

    def __init__(self, file: str, *, own: Collection[str]) -> None:
        """`own` = folders of ours, where Airflow's own files lie."""
        self.file, self._own = file, tuple(own)
        self.work: dict[tuple[int | None, str], Deed] = {}
        self.imports: dict[int | None, Deed] = {}
        self._busy = threading.local()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        # Events that the hook itself causes would never end.
        if (event != "import" and event not in _EVENTS) or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            if event == "import":
                self._import(str(args[0]))
            elif event == "sqlite3.connect" and _first(args).startswith(self._own):
                self.note("asks Airflow's database")
            else:
                self.note(_EVENTS[event](args), path=_first(args))
        except Exception:  # an audit hook that raises would change what the file does
            pass
        finally:
            self._busy.now = False

    def note(self, what: str, *, path: str = "") -> None:
        """`what` is done now, by whoever is on the stack; nothing for things that every file may do."""
        if not what or "__pycache__" in path or path.startswith((*_HARMLESS, *self._own)):
            return
        found = self._blame()
        if found is not None and not found[2]:
            # One thing done makes many events; the first says what it is, but for the look-up of a host.
            key, deed = found[:2], Deed(what=what, line=found[0], where=found[1])
            if key not in self.work or (self.work[key].what.startswith("looks up") and what.startswith("connects")):
                self.work[key] = deed

    def _import(self, module: str) -> None:
        name = next((name for name in HEAVY if module == name or module.startswith(f"{name}.")), "")
        if not name:
            return
        found = self._blame(providers=True)
        # What a provider of Airflow needs is not the user's choice; what else comes with an import is said once.
        if found is not None and not found[2]:
            self.imports.setdefault(found[0], Deed(what=name, line=found[0], where=found[1]))

    def _blame(self, *, providers: bool = False) -> tuple[int | None, str, bool] | None:
        """(line in the file, other file of the user's, excused), None when the file has no part in it.

        Excused is what installed packages do when they are imported, or with `providers`, what Airflow imports.
        """
        where, excused = "", False
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            if name == self.file:
                return frame.f_lineno, where, excused
            if name.startswith(_INSTALLED) or name.startswith("<"):
                if providers:
                    excused = excused or _is_airflows(name)
                else:
                    excused = excused or (frame.f_code.co_name == "<module>" and not name.startswith("<"))
            elif not where and not _is_ours(name):
                where = os.path.basename(name)
            frame = frame.f_back
        if threading.current_thread() is not threading.main_thread():
            return None, "a thread", False
        return None


@cache
def _is_airflows(path: str) -> bool:
    return any(path.startswith(os.path.join(base, "airflow", "")) for base in _INSTALLED)


@cache
def _is_ours(path: str) -> bool:
    """Mayfly may lie beside the user's files (plugins/)."""
    return path.startswith(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ""))
