"""`make compose-env`: the secrets of docker-compose.yaml, fresh, in a file that only its owner can read.

Never overwrites: the database keeps the password it was made with.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from pathlib import Path

ENV = Path(__file__).resolve().parent.parent / ".env"


def values() -> dict[str, str]:
    """Only characters that neither a URL nor a compose file would read as something else."""
    return {
        "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
        "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "AIRFLOW_SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW_JWT_SECRET": secrets.token_urlsafe(48),
        "MAYFLY_UI_PASSWORD": secrets.token_urlsafe(12),
    }


def main(path: Path = ENV) -> int:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"{path} is there already; kept (the database's password must not change)")
        return 0
    with os.fdopen(descriptor, "w") as file:
        file.write("# Made by `make compose-env` for docker-compose.yaml. Not for git.\n")
        file.writelines(f"{name}={value}\n" for name, value in values().items())
    print(f"{path}: written; now: docker compose up --build   (user admin, password MAYFLY_UI_PASSWORD)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
