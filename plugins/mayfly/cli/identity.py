"""Who runs here, when no Airflow says so."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from mayfly.backends.local import state_folder
from mayfly.contract import Identity
from mayfly.errors import InputError

GROUP = "cluster"


def cli_identity(*, dag_id: str, run_id: str) -> Identity:
    """Who runs here: MAYFLY_INSTALLATION, else an id made once in the user's state folder."""
    return Identity(installation=installation_id(), dag_id=dag_id, run_id=run_id, group=GROUP)


def installation_id() -> str:
    given = os.environ.get("MAYFLY_INSTALLATION")
    if given:
        return given
    path = require_state_folder() / "installation"
    if not path.exists():
        beside = path.with_name(f".installation-{os.getpid()}")
        beside.write_text(f"cli-{secrets.token_hex(6)}\n")
        try:
            os.link(beside, path)  # the first of two wins, and both read the same
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    return path.read_text().strip()


def require_state_folder() -> Path:
    """Said before anything is planned: without it neither this machine's id nor a local cluster can be written down."""
    folder = state_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise InputError(
            f"cannot write {folder}; let MAYFLY_STATE_DIR name a folder on this machine that can be written"
        )
    return folder


def new_run_id() -> str:
    """Unique, and readable in lists."""
    return f"cli__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}_{secrets.token_hex(2)}"
