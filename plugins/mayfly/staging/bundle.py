"""The code archive: what a cluster needs of ours and of the user's, as one content-addressed zip.

    lib/mayfly/...   this package without its Airflow part
    job/...          the job's folder
    programs.json    names below job/ that may be executed: whoever unpacks a zip in Python gets no modes

Equal content gives equal bytes and so an equal name: it is uploaded once, and a deploy in mid-run changes no run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mayfly
from mayfly.errors import InputError
from mayfly.staging.stores import Store

PROGRAMS = "programs.json"
MAX_BYTES = 200 * 2**20
_SKIPPED_FOLDERS = {"__pycache__", ".git", ".ipynb_checkpoints", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def make_bundle(job_folder: Path) -> tuple[str, bytes]:
    """(path below staging, zip content). InputError when the job's folder is too large to be code."""
    package = Path(mayfly.__file__).parent
    files = [(f"lib/mayfly/{name}", path) for name, path in _files(package) if not name.startswith("airflow/")]
    job = list(_files(job_folder))
    files += [(f"job/{name}", path) for name, path in job]
    size = sum(path.stat().st_size for _, path in files)
    if size > MAX_BYTES:
        raise InputError(
            f"the folder {job_folder} holds {size / 1e6:.0f} MB, at most {MAX_BYTES / 1e6:.0f} MB can travel with a "
            "job; put data elsewhere and name it under `inputs:`"
        )
    programs = [name for name, path in job if path.stat().st_mode & 0o111]
    contents = [*((name, path.read_bytes) for name, path in files), (PROGRAMS, json.dumps(programs).encode)]
    digest = hashlib.sha256()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, read in contents:
            data = read()
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return f"code/{digest.hexdigest()[:32]}.zip", buffer.getvalue()


def upload_bundle(store: Store, job_folder: Path) -> str:
    """Put the archive where it is not yet; returns its path below staging."""
    path, data = make_bundle(job_folder)
    store.create(path, data)
    return path


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Relative names (forward slashes) and paths of all regular files, sorted. Links to files are followed, and links
    to folders that stay within this one; those that lead out of it (`mayfly validate` warns) or into themselves not."""
    root = folder.resolve()

    def below(place: Path, above: tuple[Path, ...]) -> Iterator[Path]:
        for path in sorted(place.iterdir()) if os.access(place, os.R_OK | os.X_OK) else ():
            if path.is_dir():
                real = path.resolve()
                if path.name not in _SKIPPED_FOLDERS and real not in above and real.is_relative_to(root):
                    yield from below(path, (*above, real))
            elif path.is_file() and not path.name.endswith((".pyc", ".pyo")):
                yield path

    for path in below(folder, (root,)):
        yield path.relative_to(folder).as_posix(), path
