"""How Google's clients are called: what is asked again, what is not, and what is said of credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import from_grpc_status
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError, TransportError

from mayfly.backends.dataproc_calls import AlreadyExists, DataprocCalls, NotFound, WrongState
from mayfly.contract import FrozenTarget
from mayfly.contract.nodes import GcpPlan
from mayfly.errors import BackendBusy, BackendRefused, BackendUnavailable, CredentialsUnavailable, PlanError
from mayfly.staging import credentials

NO_TOKEN = "Getting metadata from plugin failed with error: ('invalid_grant: expired', {})"


class Broken(Credentials):
    """They have expired, and getting new ones fails in one way."""

    def __init__(self, error: Exception) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._error = error

    def refresh(self, request: Any) -> None:
        raise self._error


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DataprocCalls]:
    monkeypatch.delenv("DATAPROC_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(credentials, "_kept", {})

    def make(error: Exception, deadline: float = 1.0) -> DataprocCalls:
        monkeypatch.setattr(credentials, "_connections", [lambda connection, chain: Broken(error)])
        gcp = GcpPlan(project="acme-data", region="europe-west3", call_deadline=deadline)
        return DataprocCalls(
            FrozenTarget(
                name="gcp", backend="dataproc", launcher="yarn", staging="gs://a/b", connection="google", gcp=gcp
            )
        )

    return make


class Api:
    """Answers one call after the other as it was told to; the last answer for ever."""

    def __init__(self, *answers: tuple[str, str] | Exception | str) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, *, request: dict[str, Any], retry: object, timeout: float) -> str:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, str):
            return answer
        if isinstance(answer, Exception):
            raise answer
        raise from_grpc_status(grpc.StatusCode[answer[0]], answer[1])


def test_what_may_pass_is_asked_again(calls: Callable[..., DataprocCalls]) -> None:
    api = Api(("UNAVAILABLE", "x"), ("RESOURCE_EXHAUSTED", "x"), ("INTERNAL", "x"), "done")
    assert calls(RefreshError(), deadline=60.0).verb("look")(api, {}) == "done"
    assert api.asked == 4


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("NOT_FOUND", NotFound),
        ("ALREADY_EXISTS", AlreadyExists),
        ("FAILED_PRECONDITION", WrongState),
        ("INVALID_ARGUMENT", BackendRefused),
        ("PERMISSION_DENIED", BackendRefused),
    ],
)
def test_a_clear_no_is_asked_once(calls: Callable[..., DataprocCalls], code: str, error: type[BackendRefused]) -> None:
    api = Api((code, "no"))
    with pytest.raises(error) as refused:
        calls(RefreshError()).verb("create", needed=False)(api, {})
    assert api.asked == 1 and refused.value.sure and not refused.value.retryable
    with pytest.raises(error) as refused:
        calls(RefreshError(), deadline=60.0).verb("delete")(Api(("UNAVAILABLE", "x"), (code, "no")), {})
    assert not refused.value.sure and refused.value.retryable


def test_an_api_that_only_ever_says_too_many_has_done_nothing(calls: Callable[..., DataprocCalls]) -> None:
    with pytest.raises(BackendBusy):
        calls(RefreshError()).verb("create")(Api(("RESOURCE_EXHAUSTED", "x")), {})
    with pytest.raises(BackendUnavailable) as unknown:
        calls(RefreshError()).verb("create")(Api(("DEADLINE_EXCEEDED", "x"), ("RESOURCE_EXHAUSTED", "x")), {})
    assert not isinstance(unknown.value, BackendBusy)


def test_expired_credentials_are_named_at_once(calls: Callable[..., DataprocCalls]) -> None:
    """gRPC says UNAVAILABLE, as of a line that is down."""
    api = Api(("UNAVAILABLE", NO_TOKEN))
    with pytest.raises(CredentialsUnavailable, match="connection 'google' gets no token from Google: they are old"):
        calls(RefreshError("they are old"), deadline=60.0).verb("look")(api, {})
    assert api.asked == 1


def test_a_token_that_is_late_is_waited_for(calls: Callable[..., DataprocCalls]) -> None:
    for first in (("UNAVAILABLE", NO_TOKEN), TransportError("no route")):
        api = Api(first, "done")
        assert calls(TransportError("no route"), deadline=60.0).verb("look")(api, {}) == "done"
    with pytest.raises(CredentialsUnavailable, match="is not let in: withdrawn"):
        calls(RefreshError("withdrawn")).verb("look")(Api(RefreshError("withdrawn")), {})


def test_a_target_that_says_nothing_of_google_is_refused() -> None:
    with pytest.raises(PlanError, match="no `gcp:`"):
        DataprocCalls(FrozenTarget(name="gcp", backend="dataproc", launcher="yarn", staging="gs://a/b"))
