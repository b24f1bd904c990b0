"""Google's Dataproc clients, and the one way in which they are called: again and again within the verb's own deadline.

Every call that is made here may be made twice: names, job ids and request ids are chosen before, and deletion names the
cluster's uuid. So what got no answer is simply asked again.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from mayfly.contract import FrozenTarget
from mayfly.errors import BackendBusy, BackendRefused, BackendUnavailable, CredentialsUnavailable, PlanError
from mayfly.gcp.failures import BUSY, NOBODY, UNKNOWN, refusal
from mayfly.staging.credentials import google_access

if TYPE_CHECKING:
    from google.cloud.dataproc_v1 import (
        AutoscalingPolicyServiceClient,
        ClusterControllerClient,
        JobControllerClient,
    )

T = TypeVar("T")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_ONE_TRY, _SHORTEST_TRY = 20.0, 2.0
_LAST_PART = 1 / 4
"""No further try begins in this last part of a verb's time, or its last `_SHORTEST_TRY` seconds if these are less: cut
short it would have no answer, and the clear "busy" of all others would become "nobody knows"."""
_NO_TOKEN = "metadata from plugin failed"
"""gRPC's words when no token came, said as UNAVAILABLE, whether it was refused or only late."""


class NotFound(BackendRefused):
    """There is no such thing."""


class AlreadyExists(BackendRefused):
    """The name or id is taken."""


class WrongState(BackendRefused):
    """FAILED_PRECONDITION: not as things are now."""


class DataprocCalls:
    """The clients of one target, made when they are needed: importing them takes longer than most pokes."""

    def __init__(self, target: FrozenTarget) -> None:
        if target.gcp is None:
            raise PlanError(f"target {target.name!r} has backend dataproc and no `gcp:`; give project and region")
        self.target, self.gcp = target, target.gcp
        self.emulator = os.environ.get("DATAPROC_EMULATOR_HOST", "").removeprefix("http://").rstrip("/")

    @property
    def endpoint(self) -> str:
        return self.emulator or self.gcp.endpoint or f"{self.gcp.region}-dataproc.googleapis.com:443"

    @property
    def account(self) -> str:
        """Who asks, in words."""
        if self.emulator:
            return "nobody (DATAPROC_EMULATOR_HOST is set)"
        return google_access(self.target).who.rstrip(",")

    @cached_property
    def clusters(self) -> ClusterControllerClient:
        from google.cloud.dataproc_v1.services.cluster_controller import ClusterControllerClient

        return self._client(ClusterControllerClient)

    @cached_property
    def jobs(self) -> JobControllerClient:
        from google.cloud.dataproc_v1.services.job_controller import JobControllerClient

        return self._client(JobControllerClient)

    @cached_property
    def policies(self) -> AutoscalingPolicyServiceClient:
        from google.cloud.dataproc_v1.services.autoscaling_policy_service import AutoscalingPolicyServiceClient

        return self._client(AutoscalingPolicyServiceClient)

    def require_token(self) -> None:
        """CredentialsUnavailable when there is no token to be had; nothing when nobody answered for now."""
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.auth.transport.requests import Request

        access = google_access(self.target)
        try:
            access.google.refresh(Request())
        except TransportError:
            pass
        except GoogleAuthError as error:
            if not error.retryable:
                raise access.refused(error) from error

    def verb(self, name: str, *, needed: bool = True) -> Verb:
        """What is asked in one verb of the backend, all of it within the target's `call_deadline`. `needed`: a clear no
        is worth another try, since a cluster must not stay for lack of a permission that somebody may give."""
        return Verb(self, name, needed=needed)

    def _client(self, kind: Callable[..., T]) -> T:
        if not self.emulator:
            return kind(credentials=google_access(self.target).google, client_options={"api_endpoint": self.endpoint})
        return kind(transport=_transport(kind)(channel=self._channel))

    @cached_property
    def _channel(self) -> Any:
        import grpc

        return grpc.insecure_channel(self.endpoint)


def _transport(kind: Any) -> Any:
    return kind.get_transport_class("grpc")


class Verb:
    """Calls of one verb: they share its deadline."""

    def __init__(self, calls: DataprocCalls, name: str, *, needed: bool) -> None:
        self._calls, self._name, self._needed = calls, name, needed
        self._until = time.monotonic() + calls.gcp.call_deadline

    def __call__(self, method: Callable[..., T], request: dict[str, Any]) -> T:
        """The answer. BackendRefused (or one of its kinds here) when the API says no; BackendBusy when it took no call
        before the deadline, and so did nothing; BackendUnavailable when nobody knows."""
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError, TransportError

        pause, busy, last = _FIRST_PAUSE, True, "no answer"
        deadline = self._calls.gcp.call_deadline
        one_try = max(min(_ONE_TRY, deadline / 3), min(_SHORTEST_TRY, deadline))
        needed = 0.0  # the first one is made in whatever is left of the verb
        while True:
            left = self._until - time.monotonic()
            if left <= needed:
                break
            needed = min(_SHORTEST_TRY, deadline * _LAST_PART)
            try:
                return method(request=request, retry=None, timeout=min(one_try, left))
            except GoogleAuthError as error:
                if not (isinstance(error, TransportError) or error.retryable):
                    raise self._nobody(error) from error
                busy, last = False, f"no token: {error}"
            except GoogleAPICallError as error:
                code = _code(error)
                message = str(error.message)
                if code == NOBODY:
                    raise self._nobody(error) from error
                if _NO_TOKEN in message:
                    self._calls.require_token()
                if code not in UNKNOWN and code != BUSY:
                    refused = self._refused(code, message)
                    refused.sure = busy
                    raise refused from error
                busy, last = busy and code == BUSY, f"{code}: {message}"
            # All of the pause is drawn: two hundred who were refused together must not come back together.
            pause_now = random.uniform(0, pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            time.sleep(max(0.0, min(pause_now, self._until - time.monotonic())))
        said = f"{self._name}: no answer of {self._calls.endpoint} within {deadline:.0f} s; the last one was {last}"
        raise BackendBusy(said) if busy else BackendUnavailable(said)

    def all(self, pages: Iterable[T]) -> list[T]:
        """Everything of a listing, page after page. BackendUnavailable when one of them does not come."""
        from google.api_core.exceptions import GoogleAPICallError

        try:
            return list(pages)
        except GoogleAPICallError as error:
            raise BackendUnavailable(f"{self._name}: {_code(error)}: {error.message}") from error

    def _refused(self, code: str, message: str) -> BackendRefused:
        kinds = {"NOT_FOUND": NotFound, "ALREADY_EXISTS": AlreadyExists, "FAILED_PRECONDITION": WrongState}
        account = self._calls.account
        failure = refusal(code=code, message=message, verb=self._name, account=account)
        refused = kinds.get(code, BackendRefused)(failure)
        refused.retryable = refused.retryable or self._needed
        return refused

    def _nobody(self, error: Exception) -> CredentialsUnavailable:
        return CredentialsUnavailable(
            f"{self._name}: {self._calls.account} is not let in: {error}. The credentials have expired, were "
            "withdrawn, or may not act for the service account asked for"
        )


def _code(error: Any) -> str:
    status = getattr(error, "grpc_status_code", None)
    return status.name if status is not None else "UNKNOWN"
