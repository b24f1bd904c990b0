"""uv, the tool that locks and installs: where it is, how it is called, what it says when it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mayfly.environments.requirements import essential
from mayfly.errors import InputError, MayflyError


class UvFailed(MayflyError):
    """uv ended badly; the message holds the lines of its output that say why."""


def find_uv() -> str:
    """Beside the interpreter, else on PATH. InputError when there is none."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("uv")
    if found is None:
        raise InputError("uv is not here, which locks and installs job environments; install it: pip install uv")
    return found


def run_uv(*arguments: str | Path, cwd: Path | None = None, timeout: float = 1800) -> str:
    """Its output. UvFailed when it fails or needs more than `timeout` seconds."""
    command = [find_uv(), *map(str, arguments), "--no-progress", "--color", "never"]
    try:
        done = subprocess.run(
            command, cwd=cwd, env=_environment(), capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UvFailed(f"uv {' '.join(command[1:3])} did not end in {timeout:.0f} s") from error
    if done.returncode:
        raise UvFailed("\n".join(essential(done.stderr or done.stdout)) or f"uv ended with {done.returncode}")
    return done.stdout


def _environment() -> dict[str, str]:
    """uv's own settings are the user's; a mirror that pip was told of serves here, too."""
    environment = dict(os.environ)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_PYTHON", "PYTHONHOME", "PYTHONPATH"):
        environment.pop(name, None)
    if not environment.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_NO_INDEX", "UV_CONFIG_FILE"}:
        index = environment.get("PIP_INDEX_URL") or _pip_setting("global.index-url")
        if index:
            environment["UV_DEFAULT_INDEX"] = index
    return environment


def _pip_setting(name: str) -> str:
    asked: Sequence[str] = (sys.executable, "-m", "pip", "config", "get", name)
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
