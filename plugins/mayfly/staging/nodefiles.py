"""The files that machines made for a run start with: their set-up and the carrier of the driver, content-addressed.

    nodes/<hash>.sh      the cloud's script with lib.sh in it: one file, since that is what an init action is
    nodes/<hash>.py      the main file of the cloud's job

Their sources stand in `init_actions/` of the project, or else of this installation; a wheel carries a copy. As with
code, equal content has an equal name: it is uploaded once, and a deploy in mid-run changes no run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import mayfly
from mayfly.errors import InputError
from mayfly.staging.stores import Store

_FOLDER = "init_actions"
_READS_LIB = '. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"\n'
"""This line of a cloud's script stands for the content of lib.sh."""


def make_node_files(home: Path, *, cloud: str = "dataproc") -> tuple[tuple[str, bytes], tuple[str, bytes]]:
    """(path below staging, content) of the set-up script and of the carrier. InputError when their sources are absent
    or the script does not read lib.sh where we look for it."""
    script, library = _source(home, f"{cloud}.sh"), _source(home, "lib.sh")
    text = script.read_text(encoding="utf-8")
    if text.count(_READS_LIB) != 1:
        raise InputError(f"{script} has no line {_READS_LIB.strip()!r}, in whose place lib.sh is put for the upload")
    whole = text.replace(_READS_LIB, library.read_text(encoding="utf-8").partition("\n")[2])
    return _named(whole.encode(), ".sh"), _named(_source(home, "carrier.py").read_bytes(), ".py")


def upload_node_files(store: Store, home: Path, *, cloud: str = "dataproc") -> tuple[str, str]:
    """Put both files where they are not yet; returns their paths below staging: (set-up, carrier)."""
    setup, carrier = make_node_files(home, cloud=cloud)
    for path, data in (setup, carrier):
        store.create(path, data)
    return setup[0], carrier[0]


def _named(data: bytes, suffix: str) -> tuple[str, bytes]:
    return f"nodes/{hashlib.sha256(data).hexdigest()[:32]}{suffix}", data


def _source(home: Path, name: str) -> Path:
    places = list(_places(home))
    for folder in places:
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(str(folder) for folder in places)
    raise InputError(f"no {name} for the nodes of a cluster: looked in {looked}. Deploy the folder {_FOLDER}/, too")


def _places(home: Path) -> Iterator[Path]:
    """A project's own come first: a platform may want to add to them."""
    package = Path(mayfly.__file__).resolve().parent
    yield home / _FOLDER
    yield package / _FOLDER  # in a wheel
    yield package.parents[1] / _FOLDER  # beside plugins/
