"""Credentials from Airflow's connections, by the Google provider's hook (as every Google operator gets them)."""

from __future__ import annotations

from typing import Any

from mayfly.errors import CredentialsUnavailable


def google(connection: str, chain: tuple[str, ...]) -> Any:
    """Credentials of google-auth. CredentialsUnavailable names the connection."""
    try:
        from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
    except ImportError as error:
        raise CredentialsUnavailable(
            f"connection {connection!r} needs the package apache-airflow-providers-google: {error}"
        ) from error
    try:
        return GoogleBaseHook(gcp_conn_id=connection, impersonation_chain=list(chain) or None).get_credentials()
    except Exception as error:  # of Airflow, of its secrets backends, of google-auth
        raise CredentialsUnavailable(
            f"connection {connection!r} gives no credentials for Google: {type(error).__name__}: {error}. Make it in "
            "Airflow (type Google Cloud; on Composer an empty one acts as the environment's service account), or leave "
            "`connection` out of the target: then the credentials of the machine are taken"
        ) from error
