"""The interpreter of an environment: as a folder of its own that runs from any path.

Best is uv's (python-build-standalone): made to be moved, and there for the nodes' platform wherever it is packed. Where
it cannot be downloaded, and this machine is of the nodes' platform and has that Python, its own is copied.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mayfly.environments import elf
from mayfly.environments.uv import UvFailed, run_uv
from mayfly.errors import InputError, MayflyError

_SYSTEM: Final = re.compile(
    r"(ld-linux.*|linux-vdso|lib(c|m|dl|rt|pthread|util|resolv|anl|gcc_s|stdc\+\+)|libnss_.*|libnsl)\.so(\..*)?$"
)
"""Libraries that belong to a node's glibc and compiler; a copy beside another glibc would break it."""
_LEFT_OUT: Final = ("test", "idlelib", "ensurepip", "tkinter", "turtledemo", "pydoc_data", "site-packages")
_TK: Final = ("tcl", "tk", "itcl", "thread", "libtcl", "libtk")
_NOT_COPIED: Final = ("_tkinter.*", "nis.*", "_test*.so", "_ctypes_test*", "xxlimited*")


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """`python` is its full version, `source` says where it is from, `notes` what nodes must have for it."""

    python: str
    source: str
    notes: tuple[str, ...] = ()


def here(python: str) -> bool:
    """Whether this process's interpreter is a Python `python` (major.minor) for the nodes' platform."""
    same = sys.version_info[:2] == tuple(map(int, python.split(".")))
    return same and sys.platform == "linux" and platform.machine() == "x86_64"


def make_interpreter(prefix: Path, *, python: str, cache: Path, source: str = "auto") -> Interpreter:
    """Fill the new folder `prefix`. `source` is auto, uv or copy; `cache` keeps what uv has downloaded.

    InputError when neither way is open.
    """
    why = ""
    if source in ("auto", "uv"):
        try:
            return _from_uv(prefix, python=python, cache=cache)
        except UvFailed as error:
            cause = str(error).splitlines()[-1].removeprefix("cause: ")
            why = f"uv could not bring Python {python} for x86_64 Linux: {cause}"
            if source == "uv":
                raise InputError(why) from error
    if not here(python):
        mine = f"Python {platform.python_version()} on {sys.platform} {platform.machine()}"
        raise InputError(
            f"{why or 'nothing to copy'}; this machine's own ({mine}) cannot stand in for it. Build where uv can "
            f"download Python (or let UV_PYTHON_INSTALL_MIRROR name a mirror), or on x86_64 Linux with Python {python}"
        )
    return _copy_own(prefix, why=why)


def _from_uv(prefix: Path, *, python: str, cache: Path) -> Interpreter:
    name = f"cpython-{python}-linux-x86_64-gnu"
    run_uv("python", "install", name, "--install-dir", cache, "--no-bin", timeout=900)
    pattern = re.compile(rf"cpython-({re.escape(python)}\.\d+)-linux-x86_64-gnu$")
    found = [
        (match[1], path) for path in cache.iterdir() if (match := pattern.match(path.name)) and not path.is_symlink()
    ]
    if not found:
        raise UvFailed(f"uv installed no {name} in {cache}")
    version, folder = max(found, key=lambda pair: int(pair[0].rpartition(".")[2]))
    shutil.copytree(folder, prefix, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    library = prefix / "lib" / f"python{python}"
    shutil.rmtree(prefix / "share", ignore_errors=True)
    for trash in ("include", "lib/pkgconfig", *(f"lib/{name}*" for name in _TK)):
        _remove(prefix, trash)
    _trim(library)
    for path in (prefix / "bin").iterdir():
        if path.name not in ("python", "python3", f"python{python}"):
            path.unlink()
    _link(prefix, python)
    return Interpreter(python=version, source="uv")


def _copy_own(prefix: Path, *, why: str) -> Interpreter:
    """This process's base interpreter, its standard library, and the shared libraries that both need."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    old = Path(sys.base_prefix)
    library = prefix / "lib" / f"python{python}"
    skipped = shutil.ignore_patterns("__pycache__", "dist-packages", *_LEFT_OUT, *_NOT_COPIED)
    for kind in ("stdlib", "platstdlib"):
        shutil.copytree(
            sysconfig.get_path(kind, vars={"base": str(old), "platbase": sys.base_exec_prefix}),
            library,
            ignore=skipped,
            dirs_exist_ok=True,
        )
    (prefix / "bin").mkdir()
    executable = Path(sys.base_exec_prefix) / "bin" / f"python{python}"
    if not executable.exists():
        executable = Path(os.path.realpath(sys.executable))
    shutil.copy2(executable.resolve(), prefix / "bin" / f"python{python}")
    _link(prefix, python)
    _trim(library)
    if "dist-packages" in (library / "site.py").read_text(encoding="utf-8"):  # Debian's own place for packages
        (library / "dist-packages").symlink_to("site-packages")
    notes = (*_make_movable(prefix, executable), f"nodes need glibc {_glibc(prefix)} or newer")
    source = f"copy of {executable}" + (f" ({why})" if why else "")
    return Interpreter(python=platform.python_version(), source=source, notes=notes)


def _link(prefix: Path, python: str) -> None:
    for name in ("python3", "python"):
        path = prefix / "bin" / name
        path.unlink(missing_ok=True)
        path.symlink_to(f"python{python}")


def _trim(library: Path) -> None:
    for pattern in (*_LEFT_OUT, "config-*", "lib2to3/tests", "EXTERNALLY-MANAGED", "*/_tkinter.*", "../*.a", "*.a"):
        _remove(library, pattern)
    (library / "site-packages").mkdir()


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


# ---------------------------------------------------------------- moving


def _make_movable(prefix: Path, executable: Path) -> tuple[str, ...]:
    """Bring the libraries that are not every node's own into lib/, and let all files look there, wherever it is."""
    lib = prefix / "lib"
    missing = {name: Path(path) for path in _binaries(prefix) for name, path in _libraries(path, beside=executable)}
    movable = _points_home(prefix)
    for name, path in missing.items():
        if name.startswith("libpython") and not (lib / name).exists():
            shutil.copy2(path.resolve(), lib / name)
    if not movable:
        names = ", ".join(sorted(name for name in missing if not _SYSTEM.match(name) and not (lib / name).exists()))
        return (f"nodes need these libraries, of these versions: {names}",) if names else ()
    for name, path in missing.items():
        if not _SYSTEM.match(name) and not (lib / name).exists():
            shutil.copy2(path.resolve(), lib / name)
            (lib / name).chmod(0o755)
    return ()


def _binaries(prefix: Path) -> list[Path]:
    found = [path for path in (prefix / "lib").rglob("*.so*") if path.is_file() and not path.is_symlink()]
    return [*found, *(path for path in (prefix / "bin").iterdir() if not path.is_symlink())]


def _libraries(path: Path, *, beside: Path) -> list[tuple[str, Path]]:
    """What the loader would load for it on this machine, with where it is, as `ldd` says."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(beside.resolve().parent.parent / "lib")}
    done = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False, timeout=60, env=environment)
    return [
        (match[1], Path(match[2])) for match in re.finditer(r"^\s*(\S+) => (/\S.*?) \(0x", done.stdout, re.MULTILINE)
    ]


def _points_home(prefix: Path) -> bool:
    """Let every file with a search path look into lib/, counted from itself. False when the executable has none.

    What the executable looks for then holds for all libraries that have no path of their own.
    """
    movable = False
    for path in _binaries(prefix):
        data = path.read_bytes()
        found = elf.parse(data)
        if found is None or found.path is None:
            continue
        relative = os.path.relpath(prefix / "lib", path.parent)
        home = "$ORIGIN" if relative == "." else f"$ORIGIN/{relative}"
        try:
            changed = elf.with_path(data, found.path if found.path.startswith("$ORIGIN") else home)
        except ValueError as error:
            raise MayflyError(
                f"this machine's Python cannot be moved: {path.name}: {error}. Build where uv can download Python"
            ) from error
        mode = path.stat().st_mode
        path.unlink()  # it may be a second name of the original
        path.write_bytes(changed)
        path.chmod(mode)
        movable = movable or path.parent.name == "bin"
    return movable


def _glibc(prefix: Path) -> str:
    return ".".join(map(str, max(elf.glibc_of(path.read_bytes()) for path in _binaries(prefix))))
