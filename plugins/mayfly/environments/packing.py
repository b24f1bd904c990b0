"""Packing: an interpreter, the locked packages in it, byte code; proven from another path; one archive.

Nothing here runs a program of the nodes' platform unless this machine is of that platform: a Mac packs the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mayfly.contract import SCHEMA, Timestamp, decode, encode
from mayfly.environments import archive
from mayfly.environments.interpreter import Interpreter, make_interpreter
from mayfly.environments.requirements import PLATFORM, packages_of
from mayfly.environments.sources import Locked
from mayfly.environments.uv import UvFailed, run_uv
from mayfly.errors import ContractError, InputError, MayflyError

_IMPORTS: Final = ("ssl", "ctypes", "lzma", "bz2", "zlib", "hashlib", "uuid", "multiprocessing", "concurrent.futures")
_PROVEN_PACKAGES: Final = ("dask", "distributed", "bokeh", "pyarrow", "psutil", "cryptography", "fsspec", "skein")
_TESTS: Final = ("dask/**/tests", "distributed/**/tests", "numpy/**/tests", "pandas/tests", "pyarrow/tests")
_FOR_COMPILERS: Final = ("pyarrow/include", "pyarrow/src", "numpy/_core/include")
_PROOF: Final = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
mapped = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if len(line.split(None, 5)) == 6}
print(json.dumps({"prefix": sys.prefix, "path": sys.path, "mapped": sorted(mapped)}))
"""
# A launcher that finds the interpreter beside itself: a shell reads its first two lines, Python skips them.
_SHEBANG: Final = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/python3" "$0" "$@"
' '''
"""


@dataclass(frozen=True, kw_only=True)
class Built:
    """`<key>.json` beside an archive, here and in the store: what it is. `bytes` and `unpacked` are sizes in bytes."""

    key: str
    sha256: str
    bytes: int
    unpacked: int
    python: str
    interpreter: str
    requirements: str
    packages: Mapping[str, str]
    notes: tuple[str, ...] = ()
    nodes: str = PLATFORM
    built_at: Timestamp
    seconds: Mapping[str, float] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def path(self) -> str:
        """Below staging. Two machines that build the same key may get different bytes, so it names these, too."""
        return f"envs/{self.key}-{self.sha256[:8]}.tar.gz"


def envs_folder(home: Path) -> Path:
    """Where a project's archives lie: `.mayfly/envs`."""
    return home / ".mayfly" / "envs"


def archive_of(folder: Path, key: str) -> Path:
    return folder / f"{key}.tar.gz"


def read_built(folder: Path, key: str) -> Built | None:
    """What was built here under this key; None when nothing was, or not to the end."""
    try:
        built = decode(Built, (folder / f"{key}.json").read_bytes(), where=f"{folder / key}.json")
        whole = archive_of(folder, key).stat().st_size == built.bytes
    except (FileNotFoundError, ContractError):
        return None
    return built if whole else None


def has_interpreter(built: Built, asked: str) -> bool:
    """Whether it has the interpreter that is asked for: auto (whichever), uv or copy."""
    return asked == "auto" or built.interpreter.split()[0] == asked


def build(
    locked: Locked, *, requirements: str, folder: Path, interpreter: str = "auto", say: Callable[[str], None]
) -> tuple[Built, bool]:
    """(what is in `folder` under the lock's key, whether it was built now). Whole or not at all; one builder at a time.

    `interpreter` is auto, uv or copy; what was built with another one is built anew. InputError when this machine
    cannot, MayflyError when the result does not work.
    """
    key = locked.key
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}") from error
    with _locked(folder / f".{key}.lock"):
        built = read_built(folder, key)
        if built is not None and has_interpreter(built, interpreter):
            return built, False
        try:
            with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as scratch:
                built = _build(
                    locked,
                    requirements=requirements,
                    scratch=Path(scratch),
                    cache=folder / "pythons",
                    interpreter=interpreter,
                    say=say,
                )
                (folder / f"{key}.json").unlink(missing_ok=True)  # of an older archive: never beside this one
                os.replace(Path(scratch) / "archive", archive_of(folder, key))
                (Path(scratch) / "json").write_bytes(encode(built))
                os.replace(Path(scratch) / "json", folder / f"{key}.json")
        except OSError as error:
            raise MayflyError(f"cannot pack in {folder}: {error}") from error
        return built, True


def _build(
    locked: Locked, *, requirements: str, scratch: Path, cache: Path, interpreter: str, say: Callable[[str], None]
) -> Built:
    python, prefix = locked.header.python, scratch / "made"
    seconds: dict[str, float] = {}
    cache.mkdir(exist_ok=True)
    with _timed(seconds, "interpreter"):
        found = make_interpreter(prefix, python=python, cache=cache, source=interpreter)
    say(f"interpreter  Python {found.python}, {found.source}")
    site = prefix / "lib" / f"python{python}" / "site-packages"
    with _timed(seconds, "packages"):
        _install(locked, site=site, scratch=scratch)
        _trim(site)
        _move_scripts(site / "bin", prefix / "bin")
    packages = packages_of(locked.text)
    say(f"packages     {len(packages)}, in {seconds['packages']:.1f} s")
    with _timed(seconds, "byte code"):
        notes = (*found.notes, *_compile(prefix, python=python))
    with _timed(seconds, "proof"):
        prefix = prefix.rename(scratch / "moved away")
        notes += _prove(prefix, python=python, packages=packages, origin=found)
    unpacked = sum(path.lstat().st_size for path in prefix.rglob("*") if not path.is_dir() or path.is_symlink())
    with _timed(seconds, "archive"):
        sha256 = archive.pack(prefix, scratch / "archive")
    return Built(
        key=locked.key,
        sha256=sha256,
        bytes=(scratch / "archive").stat().st_size,
        unpacked=unpacked,
        python=found.python,
        interpreter=found.source,
        requirements=requirements,
        packages=packages,
        notes=notes,
        built_at=Timestamp(time.time()),
        seconds={name: round(value, 2) for name, value in seconds.items()},
    )


def _install(locked: Locked, *, site: Path, scratch: Path) -> None:
    wanted = scratch / "lock.txt"
    wanted.write_text(locked.text, encoding="utf-8")
    try:
        run_uv(
            *("pip", "install", "--quiet", "--python", sys.executable, "--target", site, "--no-deps"),
            *("--python-platform", PLATFORM, "--python-version", locked.header.python),
            *("--only-binary", ":all:", "--require-hashes", "--requirement", wanted),
        )
    except UvFailed as error:
        raise MayflyError(f"the locked packages cannot be installed:\n{error}") from error


def _trim(site: Path) -> None:
    """What no job needs: tests and headers of the largest packages (a tenth of the whole)."""
    for pattern in (*_TESTS, *_FOR_COMPILERS):
        for path in list(site.glob(pattern)):
            shutil.rmtree(path, ignore_errors=True)
    (site / ".lock").unlink(missing_ok=True)


def _move_scripts(scripts: Path, bin_folder: Path) -> None:
    """Console scripts name the building machine's interpreter; in the pack they start the one beside them."""
    if not scripts.is_dir():
        return
    for path in scripts.iterdir():
        data = path.read_bytes()
        if re.match(rb"#!.*python", data):
            data = _SHEBANG + data.partition(b"\n")[2]
        target = bin_folder / path.name
        if path.is_file() and not target.exists():
            target.write_bytes(data)
            target.chmod(0o755)
    shutil.rmtree(scripts)


def _compile(prefix: Path, *, python: str) -> tuple[str, ...]:
    """Byte code that is never checked against its source's time, which archives change. The same on all platforms."""
    same = sys.version_info[:2] == tuple(map(int, python.split(".")))
    if not same and not _runs_here():
        return (f"no byte code: this is Python {sys.version.split()[0]}; each node compiles at its first import",)
    compiler = sys.executable if same else str(prefix / "bin" / "python3")
    subprocess.run(  # what is no Python 3 (templates, old tests) stays without
        [
            *(compiler, "-I", "-W", "ignore", "-m", "compileall", "-qq", "-j", "0", "-s", str(prefix)),
            *("--invalidation-mode", "unchecked-hash", str(prefix / "lib")),
        ],
        capture_output=True,
        timeout=1800,
        check=False,
    )
    return ()


def _prove(prefix: Path, *, python: str, packages: Mapping[str, str], origin: Interpreter) -> tuple[str, ...]:
    """Run the moved interpreter, import what every cluster needs, and look where all of it came from."""
    if not _runs_here():
        return (f"not tried: packed on {sys.platform} {platform.machine()}, for x86_64 Linux",)
    names = [*_IMPORTS, *(name for name in _PROVEN_PACKAGES if name in packages)]
    try:
        done = subprocess.run(
            [str(prefix / "bin" / "python3"), "-I", "-W", "ignore", "-c", _PROOF, *names],
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MayflyError(
            f"the packed interpreter ({origin.source}) does not run from another path: {error}"
        ) from error
    if done.returncode:
        raise MayflyError(
            f"the packed interpreter ({origin.source}) does not run from another path:\n"
            + "\n".join(done.stderr.strip().splitlines()[-4:])
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    system = ("/lib", "/usr/lib", "/dev/", "/etc/", "/memfd:", "/proc/", "[")
    inside = str(prefix.resolve())
    foreign = [
        path
        for path in [answer["prefix"], *answer["path"], *answer["mapped"]]
        if path and not path.startswith((inside, str(prefix), *system))
    ]
    if foreign:
        raise MayflyError(
            f"the packed interpreter ({origin.source}) still uses files of this machine: {', '.join(foreign[:5])}"
        )
    return ()


def _runs_here() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begin


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
