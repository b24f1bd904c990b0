"""A secrets backend that has nothing and notes who asked: every look-up of a connection or variable comes by here."""

from __future__ import annotations

import os

from airflow.secrets import BaseSecretsBackend


class Recording(BaseSecretsBackend):
    """Appends a line for each question to the file RECORDING_FILE."""

    def get_conn_value(self, conn_id: str, *args: object, **more: object) -> str | None:
        return self._note(f"connection {conn_id}")

    def get_connection(self, conn_id: str, *args: object, **more: object) -> None:
        self._note(f"connection {conn_id}")

    def get_variable(self, key: str, *args: object, **more: object) -> str | None:
        return self._note(f"variable {key}")

    def _note(self, what: str) -> None:
        with open(os.environ["RECORDING_FILE"], "a", encoding="utf-8") as file:
            file.write(f"{what}\n")
