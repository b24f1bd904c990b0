"""Each fault by rule, one by one, as Google's own client meets it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions

from tests.emulators.dataproc.client import Emulator
from tests.emulators.dataproc.sdk import SECONDS, Google
from tests.emulators.test_dataproc_clusters import WORKERS, gone, until

ANSWERS = {
    "429": exceptions.ResourceExhausted,
    "500": exceptions.InternalServerError,
    "503": exceptions.ServiceUnavailable,
    "504": exceptions.DeadlineExceeded,
    "403": exceptions.PermissionDenied,
    "401": exceptions.Unauthenticated,
    "cut": exceptions.ServiceUnavailable,
}
REST_ANSWERS = {
    **ANSWERS,
    "429": exceptions.TooManyRequests,
    "504": exceptions.GatewayTimeout,
    "403": exceptions.Forbidden,
}


def answered(call: Callable[[], Any]) -> Any:
    """After a cut a client may send one more call into the dead connection: so it is with Google."""
    while True:
        try:
            return call()
        except exceptions.ServiceUnavailable:
            time.sleep(0.05)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("do", ANSWERS)
def test_an_answer_that_is_an_error(do: str, when: str, google: Google, emulator: Emulator) -> None:
    """ "after": the call has had its effect, and the client does not know."""
    rule = emulator.rule(on="CreateCluster", do=do, when=when, nth=2, cluster="c*")
    google.create("c1")
    with pytest.raises(ANSWERS[do]):
        google.create("c2")
    assert ("c2" in answered(google.list)) == (when == "after")
    assert emulator.fired() == {rule: 1}
    google.create("c3")


@pytest.mark.parametrize("do", [do for do in ANSWERS if do not in ("cut", "401")])  # anonymous ones cannot be renewed
def test_the_same_over_rest(do: str, emulator: Emulator) -> None:
    emulator.rule(on="ListClusters", do=do)
    client = Google(emulator, rest=True)
    with pytest.raises(REST_ANSWERS[do]):
        client.list()
    client.close()


def test_a_cut_over_rest(emulator: Emulator) -> None:
    emulator.rule(on="ListClusters", do="cut", times=1)
    client = Google(emulator, rest=True)
    with pytest.raises(Exception, match=r"Connection aborted|RemoteDisconnected"):
        client.list()
    assert client.list() == []
    client.close()


def test_a_cut_breaks_the_connection_for_all_who_share_it(google: Google, emulator: Emulator) -> None:
    emulator.rule(on="GetCluster", do="hang")
    emulator.rule(on="ListClusters", do="cut", times=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(google.get)
        until(lambda: 1 in emulator.fired().values())
        with pytest.raises(exceptions.ServiceUnavailable):
            google.list()
        with pytest.raises(exceptions.ServiceUnavailable):
            waiting.result(timeout=SECONDS)
    assert answered(google.list) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_no_answer(when: str, google: Google, emulator: Emulator) -> None:
    rule = emulator.rule(on="CreateCluster", do="hang", when=when)

    def no_answer() -> bool:
        """Whether the call that got none has come to the server; on a loaded machine not each does in time."""
        with pytest.raises(exceptions.DeadlineExceeded):
            google.create(timeout=2.0, request_id="one")
        return emulator.fired()[rule] > 0

    until(no_answer)
    assert google.list() == (["c"] if when == "after" else [])


def test_a_late_answer_and_any_verb(google: Google, emulator: Emulator) -> None:
    emulator.rule(on="*", do="delay", seconds=0.3, times=1)
    began = time.monotonic()
    google.list()
    assert time.monotonic() - began >= 0.3
    emulator.rule(on="*", do="error", code="DATA_LOSS", message="gone")
    with pytest.raises(exceptions.DataLoss, match="gone"):
        google.list()


def test_who_may_not_is_told_what(google: Google, emulator: Emulator) -> None:
    emulator.rule(on="*", do="403")
    with pytest.raises(exceptions.PermissionDenied, match=r"'dataproc.clusters.create' denied on .*/clusters/c'"):
        google.create()
    with pytest.raises(exceptions.PermissionDenied, match=r"'dataproc.jobs.create' denied"):
        google.submit("gs://b/main.py")
    with pytest.raises(exceptions.PermissionDenied, match=r"'dataproc.autoscalingPolicies.list' denied"):
        google.policies.list_autoscaling_policies(parent="projects/p/regions/r", retry=None)


def test_rules_are_understood_or_refused(emulator: Emulator) -> None:
    for bad in ({"on": "CreateClusters", "do": "503"}, {"on": "GetJob", "do": "explode"}, {"on": "boot", "do": "503"}):
        with pytest.raises(ValueError, match=r"there are|it can|there is no"):
            emulator.rule(**bad)


# ---------------------------------------------------------------- behind the API


def test_stuck_in_creating(google: Google, emulator: Emulator) -> None:
    emulator.rule(on="boot", do="stuck", cluster="c")
    google.create(wait=False)
    google.create("later")
    assert (google.state("later"), google.state()) == ("RUNNING", "CREATING")
    google.delete()
    assert gone(google)


REASONS = {
    "quota": (exceptions.InvalidArgument, "Insufficient 'CPUS' quota"),
    "stockout": (exceptions.FailedPrecondition, "europe-west1-a' does not have enough resources available"),
    "permission": (exceptions.PermissionDenied, "Required 'compute.instances.create' permission"),
    "subnet": (exceptions.InvalidArgument, "subnetworks/default' was not found"),
    "agent": (exceptions.InternalServerError, "Only 0 out of 2 minimum required node managers"),
    "internal": (exceptions.InternalServerError, "Internal"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_error_with_a_reason(reason: str, google: Google, emulator: Emulator) -> None:
    """A cluster in ERROR keeps its machines until it is deleted."""
    kind, text = REASONS[reason]
    emulator.rule(on="boot", do="error", reason=reason)
    with pytest.raises(kind, match=text):
        google.create(config=WORKERS)
    status = google.get().status
    assert status.state.name == "ERROR" and status.detail
    assert google.list("status.state = INACTIVE") == ["c"]
    assert emulator.clusters()[0]["machines"] == ["c-m", "c-w-0", "c-w-1"]
    google.delete()
    assert emulator.clusters() == []


@pytest.mark.parametrize("how", ["init_fails", "init_hangs"])
def test_init_actions(how: str, google: Google, emulator: Emulator) -> None:
    emulator.rule(on="boot", do=how, node="w-1", seconds=0.1, output="a line\nno space left\n")
    config = {**WORKERS, "config_bucket": "stage", "initialization_actions": [{"executable_file": "gs://b/setup.sh"}]}
    with pytest.raises(exceptions.InvalidArgument) as refused:
        google.create(config=config)
    cluster = google.get()
    path = f"google-cloud-dataproc-metainfo/{cluster.cluster_uuid}/c-w-1/dataproc-initialization-script-0_output"
    what = "failed" if how == "init_fails" else "timed out"
    detail = f"Initialization action {what}. Failed action 'gs://b/setup.sh', see output in: gs://stage/{path}"
    assert cluster.status.detail == detail == refused.value.message
    assert (emulator.folder / "buckets" / "stage" / path).read_text() == "a line\nno space left\n"


def test_delete_stuck(google: Google, emulator: Emulator) -> None:
    rule = emulator.rule(on="shutdown", do="stuck", cluster="c")
    google.create()
    google.create("later")
    google.delete(wait=False)
    google.delete("later")
    assert gone(google, "later") and google.state() == "DELETING" and emulator.clusters()[0]["machines"]
    emulator.remove_rule(rule)
    until(lambda: gone(google))


def test_delete_fails(google: Google, emulator: Emulator) -> None:
    emulator.rule(on="shutdown", do="error", reason="internal", times=1)
    google.create()
    with pytest.raises(exceptions.InternalServerError):
        google.delete()
    assert google.state() == "ERROR"
    google.delete()
    assert gone(google)


def test_a_cluster_dies_in_mid_job(google: Google, emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import time; time.sleep(600)")
    emulator.rule(on="job", do="cluster_error", seconds=0.3, message="The master is not well.")
    google.create()
    google.submit(f"file://{tmp_path}/main.py")
    until(lambda: google.state() == "ERROR")
    assert google.get().status.detail == "The master is not well."
    job = until(lambda: (job := google.job()).done and job)
    assert (job.status.state.name, job.status.details) == ("ERROR", "The master is not well.")
    with pytest.raises(exceptions.FailedPrecondition):
        google.submit("gs://b/main.py", job_id="k")


@pytest.mark.parametrize(
    ("rule", "state", "details"),
    [
        ({"do": "body", "seconds": 0.1}, "DONE", ""),
        ({"do": "body", "exit": 4}, "ERROR", "Google Cloud Dataproc Agent reports job failure"),
        ({"do": "lost"}, "ERROR", "Task not acquired"),
        ({"do": "error", "message": "Task not found"}, "ERROR", "Task not found"),
    ],
)
def test_jobs(rule: dict[str, Any], state: str, details: str, google: Google, emulator: Emulator) -> None:
    emulator.rule(on="job", **rule)
    google.create()
    google.submit("gs://b/main.py")
    job = until(lambda: (job := google.job()).done and job)
    assert job.status.state.name == state and details in job.status.details


def test_a_job_that_never_starts(google: Google, emulator: Emulator) -> None:
    stuck = emulator.rule(on="job", do="stuck", times=1)
    google.create()
    google.submit("gs://b/main.py")
    until(lambda: emulator.fired()[stuck])
    emulator.rule(on="job", do="body")
    google.submit("gs://b/main.py", job_id="later")
    until(lambda: google.job("later").done)
    assert google.job().status.state.name == "PENDING"
    google.cancel()
    assert until(lambda: (job := google.job()).done and job).status.state.name == "CANCELLED"


# ---------------------------------------------------------------- nodes


@pytest.mark.parametrize("do", ["lose", "preempt"])
@pytest.mark.parametrize("by", ["rule", "order"])
def test_a_secondary_worker_is_replaced(by: str, do: str, google: Google, emulator: Emulator) -> None:
    config = {**WORKERS, "secondary_worker_config": {"num_instances": 1, "preemptibility": "SPOT"}}
    if by == "rule":
        emulator.rule(on="running", do=do, node="sw-*", seconds=0.2)
    cluster = google.create(config=config)
    (first,) = cluster.config.secondary_worker_config.instance_names
    if by == "order":
        emulator.node("c", first, do)
    until(lambda: list(google.get().config.secondary_worker_config.instance_names) not in ([], [first]))
    assert google.state() == "RUNNING"


def test_a_master_that_is_lost(google: Google, emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import time; time.sleep(600)")
    emulator.settings(master_lost=0.3)
    google.create()
    google.submit(f"file://{tmp_path}/main.py")
    until(lambda: google.job().status.state.name == "RUNNING")
    emulator.node("c", "m", "lose")
    until(lambda: google.state() == "ERROR")
    assert google.get().status_history[-1].substate.name == "STALE_STATUS"
    assert until(lambda: (job := google.job()).done and job).status.state.name == "ERROR"


def test_a_node_is_there_until_its_notice_is_over(google: Google, emulator: Emulator, tmp_path: Path) -> None:
    """However long that is by now: the machines know of no time of their own."""
    (tmp_path / "main.py").write_text("import time; time.sleep(600)")
    for name in ("brief", "c", "later"):
        google.create(name)
        google.submit(f"file://{tmp_path}/main.py", cluster=name, job_id=name)
        until(lambda name=name: google.job(name).status.state.name == "RUNNING")
    emulator.node("brief", "m", "preempt")
    until(lambda: google.state("brief") == "ERROR")
    emulator.settings(preempt_notice=3600)
    emulator.node("c", "m", "preempt")
    emulator.node("later", "m", "lose")
    until(lambda: google.state("later") == "ERROR")
    assert (google.state(), google.job("c").status.state.name) == ("RUNNING", "RUNNING")
    emulator.node("c", "m", "lose")
    until(lambda: google.state() == "ERROR")


def test_a_master_without_network(google: Google, emulator: Emulator) -> None:
    emulator.rule(on="job", do="body", seconds=3600)
    google.create()
    google.submit("gs://b/main.py")
    until(lambda: google.job().status.state.name == "RUNNING")
    emulator.node("c", "m", "cut")
    until(lambda: google.get().status.substate.name == google.job().status.substate.name == "STALE_STATUS")
    emulator.node("c", "m", "heal")
    until(lambda: google.get().status.substate.name == google.job().status.substate.name == "UNSPECIFIED")
    with pytest.raises(ValueError, match="there are: c-m"):
        emulator.node("c", "w-9", "lose")


def test_a_primary_worker_that_never_came(google: Google, emulator: Emulator) -> None:
    emulator.rule(on="boot", do="missing", node="w-1")
    config = google.create(config=WORKERS).config
    assert list(config.worker_config.instance_names) == ["c-w-0"] and config.worker_config.num_instances == 2
    assert emulator.clusters()[0]["machines"] == ["c-m", "c-w-0"]


def test_many_at_once(emulator: Emulator) -> None:
    """200 clusters through an API that lets 100 changes through: who is refused has made nothing."""
    emulator.settings(cluster_quota=100, quota_seconds=3600)
    client = Google(emulator)

    def create(number: int) -> bool:
        try:
            client.create(f"c{number}", wait=False)
        except exceptions.ResourceExhausted:
            return False
        return True

    with ThreadPoolExecutor(50) as pool:
        made = list(pool.map(create, range(200)))
    assert sum(made) == 100 == len(client.list(page_size=30)) == len(emulator.history())
    client.close()
