"""The only package of Mayfly that imports Airflow. Inside it, targets' connections are asked for credentials."""

from __future__ import annotations

from typing import Any

from mayfly.staging import credentials


def _google(connection: str, chain: tuple[str, ...]) -> Any:
    from mayfly.airflow.connections import google

    return google(connection, chain)


credentials.ask_connections(_google)
