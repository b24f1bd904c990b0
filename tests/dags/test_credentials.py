"""Who Mayfly is to Google: a target's connection inside Airflow, the machine elsewhere; nobody by mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import mayfly.airflow  # noqa: F401 - registers where connections are asked
from mayfly.contract import FrozenTarget
from mayfly.contract.nodes import GcpPlan
from mayfly.errors import CredentialsUnavailable, PlanError, StoreUnavailable
from mayfly.staging import credentials
from mayfly.staging.credentials import google_access, target_store
from mayfly.staging.gcs import GcsStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def account() -> dict[str, Any]:
    """A key of a service account, as a connection or a file holds it."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return {
        "type": "service_account",
        "client_email": "mayfly@p.iam.gserviceaccount.com",
        "private_key": private.private_bytes(*form).decode(),
        "private_key_id": "1",
        "project_id": "p",
        "token_uri": "http://127.0.0.1:9/token",
    }


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of the machine on which the test runs."""
    monkeypatch.setattr(credentials, "_kept", {})
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)


def target(*, connection: str | None = None, impersonate: tuple[str, ...] = ()) -> FrozenTarget:
    gcp = GcpPlan(project="p", region="r", impersonate=impersonate)
    return FrozenTarget(
        name="gcp", backend="dataproc", launcher="yarn", staging="gs://bucket/mayfly", prefix="mayfly", gcp=gcp,
        connection=connection,
    )  # fmt: skip


@pytest.fixture
def connection(account: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    extra = {"project": "p", "keyfile_dict": json.dumps(account)}
    monkeypatch.setenv("AIRFLOW_CONN_GCP_PROD", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))
    return "gcp_prod"


def test_a_connection_is_asked_by_googles_hook(connection: str) -> None:
    access = google_access(target(connection=connection))
    assert access.google.service_account_email == "mayfly@p.iam.gserviceaccount.com"
    assert access.who == "connection 'gcp_prod'"
    assert google_access(target(connection=connection)) is access  # one token for store and backend
    assert isinstance(target_store(target(connection=connection)), GcsStore)


def test_a_chain_of_accounts_is_acted_through(connection: str, account: dict[str, Any], tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    chain = ("first@p.iam.gserviceaccount.com", "last@p.iam.gserviceaccount.com")
    (tmp_path / "key.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    for who in (connection, None):
        access = google_access(target(connection=who, impersonate=chain))
        assert access.google.service_account_email == chain[-1]
        assert access.google._delegates == list(chain[:-1])
        assert "acting as last@p.iam.gserviceaccount.com" in access.who


def test_a_missing_connection_is_named() -> None:
    with pytest.raises(CredentialsUnavailable, match=r"connection 'nowhere' gives no credentials.*isn't defined"):
        google_access(target(connection="nowhere"))


def test_no_credentials_at_all_say_what_to_do() -> None:
    with pytest.raises(CredentialsUnavailable, match=r"Name a connection in the target.*gcloud auth application-def"):
        target_store(target())


def test_plan_does_not_wait_for_credentials(tmp_path: Path) -> None:
    from mayfly.contract import Identity
    from mayfly.project.loading import Project
    from mayfly.steps.planning import plan_step

    who = Identity(installation="t", dag_id="d", run_id="r", group="g")
    job = Project(ROOT).job("flights")
    gcp = replace(target(), name="gcp-demo", data="gs://bucket/data")  # one that the job may use
    with pytest.raises(PlanError, match=r"target 'gcp-demo': no credentials for Google"):
        plan_step(job=job, target=gcp, identity=who, home=ROOT, by="t")


def test_a_token_server_out_of_reach_is_unknown(connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = GcsStore("gs://bucket/x", google_access(target(connection=connection)), patience=0.2)
    with pytest.raises(StoreUnavailable, match="no token for connection 'gcp_prod'"):
        store.get("receipt.json")


def test_an_emulator_is_asked_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9")
    store = target_store(target(connection="nowhere"))
    assert isinstance(store, GcsStore)
    assert store.access is None


def test_outside_airflow_no_connection_is_asked(account: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(json.dumps(account))
    place = "backend='dataproc', launcher='yarn', staging='gs://bucket', prefix='m'"
    code = (
        "import sys; from mayfly.contract import FrozenTarget; from mayfly.staging.credentials import google_access\n"
        f"target = FrozenTarget(name='t', {place}, connection='c')\n"
        "print(google_access(target).who, 'airflow' in sys.modules)"
    )
    env = {"PYTHONPATH": str(ROOT / "plugins"), "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "the ambient credentials of this machine False"
