"""Who this machine is to Google, and which store stands in Google's place; `credentials` knows of targets."""

from __future__ import annotations

import os
from typing import Any

from mayfly.errors import CredentialsUnavailable

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
"""What the credentials may do is decided by roles, not by scopes."""


def emulator() -> str:
    """Address of the store that stands in for Google's, empty when none does."""
    host = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    return host if not host or "://" in host else f"http://{host}"


class Access:
    """Credentials of google-auth with the name under which people know them. Threads may share it."""

    def __init__(self, google: Any, who: str) -> None:
        self.google, self.who = google, who

    def refused(self, error: Exception) -> CredentialsUnavailable:
        """When Google gives no token for these, and asking again is no use."""
        return CredentialsUnavailable(
            f"{self.who} gets no token from Google: {error}. They have expired, were withdrawn, or may not act for the "
            "service account asked for (roles/iam.serviceAccountTokenCreator)"
        )


def ambient_access(chain: tuple[str, ...] = ()) -> Access:
    """Of this machine or this user, acting through a chain of service accounts. CredentialsUnavailable."""
    try:
        import google.auth
        from google.auth import impersonated_credentials
        from google.auth.exceptions import GoogleAuthError
    except ImportError as error:
        raise CredentialsUnavailable(
            f"Google's client is not installed ({error}): pip install 'mayfly[gcp]'; nodes get it with the job's "
            "environment"
        ) from error
    try:
        found, _ = google.auth.default(scopes=[SCOPE])
    except GoogleAuthError as error:
        raise CredentialsUnavailable(
            f"no credentials for Google: {str(error).rstrip('.')}. Name a connection in the target (inside Airflow), "
            "or run `gcloud auth application-default login`"
        ) from error
    if chain:
        found = impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
            source_credentials=found,
            target_principal=chain[-1],
            delegates=list(chain[:-1]),
            target_scopes=[SCOPE],
        )
    return Access(found, f"the ambient credentials of this machine{acting_as(chain)}")


def acting_as(chain: tuple[str, ...]) -> str:
    """For messages: the last of a chain, with commas around it."""
    return f", acting as {chain[-1]}," if chain else ""
