"""Staging on gs:// when the line or the store is bad: nothing is lost, nothing is made up, nobody waits for ever."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import BackendUnavailable, CredentialsUnavailable, StoreRefused, StoreUnavailable
from mayfly.staging import gcs
from mayfly.staging.gcs import GcsStore
from mayfly.staging.google import Access
from scripts.cloud.object_store import ObjectStore
from tests.emulators.crooked import Fault, Line, crooked

UPLOAD = "/upload/storage/v1/b/"
READ = "alt=media"


@pytest.fixture
def line(object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    with crooked(object_store.url) as line:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", line.url)
        yield line


@pytest.fixture
def store(line: Line, bucket: str) -> GcsStore:
    return GcsStore(f"{bucket}/staging", patience=30.0)


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("what", ["cut", 503])
def test_whose_answer_was_lost_was_still_the_first(store: GcsStore, line: Line, what: str | int) -> None:
    line.faults.append(Fault(method="POST", where=UPLOAD, what=what, after=True))
    assert store.create("started.json", b"me")
    assert not store.create("started.json", b"another")
    assert store.get("started.json") == b"me"


def test_who_lost_is_not_first_whatever_the_line_does(store: GcsStore, line: Line) -> None:
    assert store.create("started.json", b"same words")
    for after in (False, True):
        line.faults.append(Fault(method="POST", where=UPLOAD, what="cut", after=after))
        assert not store.create("started.json", b"same words")


def test_of_many_creators_one_wins(store: GcsStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda n: store.create("closing.json", b"%d" % n), range(24))) == 1


def test_more_than_one_write_a_second_waits(store: GcsStore, line: Line) -> None:
    line.faults.append(Fault(method="POST", where=UPLOAD, what=429, times=2))
    store.put("lease.json", b"1")
    assert store.get("lease.json") == b"1"
    assert [path for method, path, _ in line.asked if method == "POST"][3:] == []


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gcs, "CHUNK", 4 << 20)  # below 8 MiB the client sends all at once
    path = tmp_path / "large"
    path.write_bytes(os.urandom(3 * gcs.CHUNK + 12345))
    return path


@pytest.mark.parametrize("what", ["cut", 503])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_chunks_are_sent_again(
    store: GcsStore, line: Line, large: Path, what: str | int, after: bool, times: int
) -> None:
    line.faults.append(Fault(method="PUT", where="upload_id", what=what, after=after, times=times))
    assert store.create_file("envs/a.tar.gz", large)
    found = store.open("envs/a.tar.gz")
    assert found is not None
    with found:
        assert found.read() == large.read_bytes()
    assert not store.create_file("envs/a.tar.gz", large)


def test_an_upload_that_is_given_up_leaves_nothing(store: GcsStore, line: Line, large: Path) -> None:
    line.faults.append(Fault(method="PUT", where="upload_id", what=503, times=99))
    with pytest.raises(StoreUnavailable, match="503"):
        store.create_file("envs/a.tar.gz", large)
    assert store.size("envs/a.tar.gz") is None


# ---------------------------------------------------------------- reading


def test_a_stream_that_breaks_goes_on(store: GcsStore, line: Line, large: Path) -> None:
    store.create_file("envs/a.tar.gz", large)
    line.faults.append(Fault(method="GET", where=READ, what="half", times=3))
    found = store.open("envs/a.tar.gz")
    assert found is not None
    with found:
        assert found.read() == large.read_bytes()
    assert not line.faults[0].times


@pytest.mark.parametrize("replaced", [False, True])
def test_a_stream_whose_object_goes_away_says_so(store: GcsStore, line: Line, large: Path, replaced: bool) -> None:
    store.create_file("envs/a.tar.gz", large)
    found = store.open("envs/a.tar.gz")
    assert found is not None
    with found:
        assert found.read(10) == large.read_bytes()[:10]
        if replaced:
            line.faults.append(Fault(method="GET", where=READ, what=412))  # the emulator checks no condition here
        else:
            store.remove("envs/a.tar.gz")
        with pytest.raises(StoreUnavailable, match=r"cannot read .*/envs/a.tar.gz: it was removed or replaced"):
            found.read()


def test_half_an_object_is_no_object(store: GcsStore, line: Line) -> None:
    store.put("plan.json", b"0123456789")
    line.faults.append(Fault(method="GET", where=READ, what="half"))
    assert store.get("plan.json") == b"0123456789"


def test_long_listings_come_in_pages(store: GcsStore, line: Line) -> None:
    names = [f"runs/{n}/plan.json" for n in range(5)]
    for name in names:
        store.put(name, b"")
    line.more_query = "maxResults=2"
    assert store.list("runs/") == names
    assert sum("nextPageToken" in path for _, path, _ in line.asked) == 3


def test_reading_and_writing_say_nothing(store: GcsStore, caplog: pytest.LogCaptureFixture) -> None:
    """What Google's client logs would stand in the task's log, at each poke."""
    with caplog.at_level("INFO"):
        store.put("plan.json", b"{}")
        assert store.get("plan.json") == b"{}" and store.get("closing.json") is None
        assert store.create("a", b"1") and not store.create("a", b"1") and store.list("") == ["a", "plan.json"]
        found = store.open("plan.json")
        assert found is not None and found.read() == b"{}"
    assert [record.getMessage() for record in caplog.records if record.name.startswith("google")] == []


# ---------------------------------------------------------------- no answer, no permission


@pytest.mark.parametrize("what", ["cut", "hang", 503, 429])
def test_no_answer_is_not_absence(line: Line, bucket: str, what: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "_TIMEOUT", (0.3, 0.3))
    store = GcsStore(bucket, patience=0.2)
    line.faults += [Fault(method=method, where="/", what=what, times=99) for method in ("GET", "POST", "DELETE")]
    for ask in (store.get, store.list, store.open, store.size, store.remove):
        with pytest.raises(StoreUnavailable):
            ask("x")
    for write in (store.put, store.create):
        with pytest.raises(StoreUnavailable, match=f"cannot write {bucket}/x"):
            write("x", b"")


def test_a_bucket_that_is_not_there_is_said(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", object_store.url)
    for ask in ("get", "list", "size", "open", "remove"):
        with pytest.raises(StoreRefused, match="There is no bucket 'nowhere-to-be-found'"):
            getattr(GcsStore("gs://nowhere-to-be-found/x"), ask)("plan.json")
    with pytest.raises(StoreRefused, match="There is no bucket"):
        GcsStore("gs://nowhere-to-be-found/x").create("plan.json", b"")


def test_a_refusal_says_who_lacks_what(store: GcsStore, line: Line) -> None:
    said = b'{"error": {"code": 403, "message": "a@b.iam does not have storage.objects.create access"}}'
    line.faults.append(Fault(method="POST", where=UPLOAD, what=403, body=said))
    with pytest.raises(StoreRefused, match=r"a@b\.iam does not have storage.objects.create.*roles/storage.objectUser"):
        store.put("x", b"")


# ---------------------------------------------------------------- credentials


class TokenServer:
    """Where service accounts get their tokens; `line` says how many were asked for."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.tokens = 0

    def give(self, *, times: int = 1) -> None:
        self.tokens += 1
        body = json.dumps({"access_token": f"token-{self.tokens}", "expires_in": 3600, "token_type": "Bearer"})
        self.line.faults.append(Fault(method="POST", where="/token", what=200, body=body.encode(), times=times))

    def refuse(self) -> None:
        body = b'{"error": "invalid_grant", "error_description": "account has been disabled"}'
        self.line.faults.append(Fault(method="POST", where="/token", what=400, body=body, times=99))


@pytest.fixture(scope="module")
def key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return private.private_bytes(*form).decode()


@pytest.fixture
def account(line: Line, key: str) -> dict[str, str]:
    """A key file of a service account whose tokens come from the line."""
    return {
        "type": "service_account",
        "client_email": "mayfly@p.iam.gserviceaccount.com",
        "private_key": key,
        "private_key_id": "1",
        "project_id": "p",
        "token_uri": f"{line.url}/token",
    }


@pytest.fixture
def access(account: dict[str, Any]) -> Access:
    from google.oauth2 import service_account

    from mayfly.staging.google import SCOPE

    made = service_account.Credentials.from_service_account_info(account, scopes=[SCOPE])
    return Access(made, "connection 'gcp'")


def test_a_withdrawn_token_is_replaced(line: Line, bucket: str, access: Access) -> None:
    tokens = TokenServer(line)
    for _ in range(4):
        tokens.give()
    store = GcsStore(bucket, access)
    store.put("a", b"1")
    withdrawn = line.asked[-1][2]["authorization"]
    line.faults.append(Fault(method="GET", where=READ, what=401))
    assert store.get("a") == b"1"
    assert line.asked[-1][2]["authorization"] not in ("", withdrawn)


def test_expired_credentials_are_unknown_and_never_gone(line: Line, bucket: str, access: Access) -> None:
    TokenServer(line).refuse()
    store = GcsStore(bucket, access)
    for ask in (store.get, store.list, store.size):
        with pytest.raises(CredentialsUnavailable, match=r"connection 'gcp' gets no token.*disabled"):
            ask("receipt.json")
    assert issubclass(CredentialsUnavailable, StoreUnavailable)
    assert issubclass(CredentialsUnavailable, BackendUnavailable)


def test_a_token_that_nobody_gives_is_waited_for(line: Line, bucket: str, access: Access) -> None:
    line.faults.append(Fault(method="POST", where="/token", what="cut", times=1))
    TokenServer(line).give()
    GcsStore(bucket, access).put("a", b"1")
    line.faults.clear()
    access.google.token = None
    line.faults.append(Fault(method="POST", where="/token", what="cut", times=999))
    with pytest.raises(StoreUnavailable, match="no token for connection 'gcp'"):
        GcsStore(bucket, access, patience=0.2).put("a", b"1")


def test_a_child_process_has_connections_of_its_own(store: GcsStore) -> None:
    store.put("parent", b"1")
    child = os.fork()
    if not child:
        try:
            store.put("child", b"2")
            os._exit(0 if store.get("parent") == b"1" else 1)
        finally:
            os._exit(2)
    assert store.get("parent") == b"1"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.get("child") == b"2"
