"""Answers of real ResourceManagers (Hadoop 3.5.0), and what follows from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import YarnRefused, YarnUnavailable
from mayfly.yarn import account as accounts
from mayfly.yarn import queues, waiting
from mayfly.yarn.exits import Cause, cause_of, code_of, said
from mayfly.yarn.facts import (
    MIB,
    NOTHING,
    Application,
    Container,
    Life,
    Node,
    NodeState,
    Size,
    read_application,
    read_applications,
    read_nodes,
)
from mayfly.yarn.fit import Request, check, largest_container, may_submit
from mayfly.yarn.queues import Queues, read_queues

ANSWERS = Path(__file__).parent / "yarn_answers"


def answer(name: str) -> Any:
    return json.loads((ANSWERS / f"{name}.json").read_text())


def mib(memory: int, cores: int = 1) -> Size:
    return Size(memory=memory * MIB, cores=cores)


SETTINGS = {"yarn.acl.enable": "true", "yarn.admin.acl": "root", "yarn.scheduler.minimum-allocation-mb": "128"}
CAPACITY = queues.with_settings(read_queues(answer("scheduler-capacity")), SETTINGS)
FAIR = queues.with_settings(read_queues(answer("scheduler-fair")), {})
NODES = read_nodes(answer("nodes"))


def request(queue: str | None = "batch", **given: Any) -> Request:
    defaults: dict[str, Any] = {
        "label": None,
        "user": "root",
        "worker": mib(1024),
        "master": mib(512),
        "workers": 2,
    }
    return Request(queue=queue, **{**defaults, **given})


def checked(queues: Queues, given: Request, nodes: tuple[Node, ...] = NODES, labels: tuple[str, ...] = ()) -> Any:
    return check(given, queues=queues, nodes=nodes, labels=labels)


# ---------------------------------------------------------------- reading


def test_capacity() -> None:
    assert CAPACITY.kind == "capacity"
    assert CAPACITY.names() == "background, batch, interactive, a, closed"
    batch = CAPACITY.find("batch")
    assert batch is not None
    assert (batch.path, batch.share, batch.maximum, batch.maximum_size) == ("root.batch", 0.5, 0.5, mib(4096, 8))
    assert batch.lone_user_limit == mib(4096, 8)
    background = CAPACITY.find("root.background")
    assert background is not None
    assert background.largest == mib(2048, 2)
    assert CAPACITY.find("team.a") is CAPACITY.find("a")
    assert CAPACITY.charged(mib(1000)) == mib(1024)


def test_fair() -> None:
    assert FAIR.kind == "fair"
    assert FAIR.names() == "background, batch, interactive, a"
    batch = FAIR.find("batch")
    assert batch is not None
    assert (batch.maximum, batch.maximum_size, batch.used) == (0.5, mib(4096, 8), mib(4096, 4))
    assert FAIR.charged(mib(1025)) == mib(2048)
    finer = queues.with_settings(FAIR, {"yarn.resource-types.memory-mb.increment-allocation": "128Mi"})
    assert finer.charged(mib(1025)) == mib(1152)


def test_another_scheduler_tells_nothing_and_only_nodes_count() -> None:
    fifo = read_queues({"scheduler": {"schedulerInfo": {"type": "fifoScheduler", "capacity": 1.0}}})
    assert fifo == Queues(kind="fifo")
    assert checked(fifo, request("anything")) == ()
    with pytest.raises(YarnRefused, match="the largest node"):
        checked(fifo, request(worker=mib(5000)))
    assert read_queues({}).kind == "unknown"


def test_the_same_last_name_twice_must_be_written_in_full() -> None:
    batch = CAPACITY.find("batch")
    assert batch is not None
    twice = replace(CAPACITY, leaves=(*CAPACITY.leaves, replace(batch, path="root.team.batch")))
    assert twice.find("batch") is batch  # exact below root
    only_below = replace(twice, leaves=tuple(replace(q, path=f"root.x.{q.name}") for q in (batch,)) + twice.leaves[-1:])
    assert only_below.find("batch") is None
    with pytest.raises(YarnRefused, match=r"stands for several: write one of root\.team\.batch, root\.x\.batch"):
        checked(only_below, request("batch"))


# ---------------------------------------------------------------- deciding


@pytest.mark.parametrize("queues", [CAPACITY, FAIR], ids=["capacity", "fair"])
@pytest.mark.parametrize(
    ("given", "text"),
    [
        (request("fast"), "queue 'fast' does not exist; queues: background, batch, interactive, a"),
        (request("team"), "queue 'team' holds other queues and takes no applications"),
        (request("root"), "queue 'root' holds other queues"),
        (
            request(worker=mib(20 << 10)),
            r"a worker of 21.5 GB \(20480 MiB\) and 1 cores does not fit: largest container 3.22 GB \(3072 MiB\)",
        ),
        (request(worker=mib(1024, 5)), "and 5 cores does not fit: .* and 4 cores"),
        (request("background", worker=mib(2500)), r"largest container 2.15 GB .* \(the queue's maximum\)"),
        (request(master=mib(4000)), "the application master of .* does not fit"),
        (request(label="gpu"), "node label 'gpu' does not exist; this cluster has no node labels"),
    ],
)
def test_refused(queues: Queues, given: Request, text: str) -> None:
    with pytest.raises(YarnRefused, match=text):
        checked(queues, given)


def test_refused_by_a_stopped_queue_and_by_access() -> None:
    with pytest.raises(YarnRefused, match="queue 'closed' is stopped; queues: background, batch, interactive, a"):
        checked(CAPACITY, request("closed"))
    closed = replace(CAPACITY, leaves=tuple(replace(q, allowed=(" ", "alice ", " ")) for q in CAPACITY.leaves[:1]))
    name = closed.leaves[0].name
    with pytest.raises(YarnRefused, match=f"user 'bob' is not allowed to submit to queue '{name}'"):
        checked(closed, request(name, user="bob"))
    assert checked(closed, request(name, user="alice")) == ()
    assert checked(closed, request(name, user="root")) == ()  # YARN's administrator
    assert checked(replace(closed, acl=False), request(name, user="bob")) == ()
    groups = replace(closed.leaves[0], allowed=("alice staff",))
    assert may_submit("bob", groups, closed) is None  # bob may be of the staff; YARN knows


def test_labels() -> None:
    labelled = tuple(replace(node, labels=("gpu",), total=mib(2048, 2)) for node in NODES[:1])
    assert (
        checked(CAPACITY, request(label="gpu"), (*labelled, *NODES[1:]), ("gpu",))
        == ("the 1 nodes that run now hold 2 of the 2 workers that must be there",)[1:]
    )
    with pytest.raises(YarnRefused, match="the largest node"):
        checked(CAPACITY, request(label="gpu", worker=mib(3000)), (*labelled, *NODES[1:]), ("gpu",))
    narrow = replace(CAPACITY, leaves=tuple(replace(q, labels=("ssd",)) for q in CAPACITY.leaves))
    with pytest.raises(YarnRefused, match="queue 'batch' may not use nodes with the label 'gpu'; it may use: ssd"):
        checked(narrow, request(label="gpu"), labels=("gpu", "ssd"))
    with pytest.raises(YarnRefused, match="node label 'tpu' does not exist; labels: gpu, ssd"):
        checked(narrow, request(label="tpu"), labels=("ssd", "gpu"))


def test_no_node_is_no_refusal() -> None:
    lost = tuple(replace(node, state=NodeState.LOST) for node in NODES)
    with pytest.raises(YarnUnavailable, match="no node is running: YARN has 2 nodes, 2 LOST"):
        checked(CAPACITY, request(), lost)


@pytest.mark.parametrize("queue", [None, "default"])
def test_without_a_queue_yarn_chooses(queue: str | None) -> None:
    assert checked(CAPACITY, request(queue)) == ()


def test_what_may_make_it_wait_is_noted_and_not_refused() -> None:
    notes = checked(CAPACITY, request(workers=20))
    assert notes == (
        "the 2 nodes that run now hold 8 of the 20 workers that must be there",
        "queue batch at its maximum 50 % holds 3 of the 20 workers that must be there",
        "one user's share of queue batch holds 4 of the 20 workers that must be there",
    )


def test_largest_container_is_that_of_one_node() -> None:
    big = replace(CAPACITY, largest=mib(1 << 20, 512), leaves=())
    assert largest_container(big, NODES, queue=None, label=None) == mib(4096, 8)
    assert largest_container(CAPACITY, NODES, queue=CAPACITY.find("background"), label=None) == mib(2048, 2)


# ---------------------------------------------------------------- waiting

APP = Application(id="application_1_1", life=Life.RUNNING, user="root", queue="batch", containers=4, pending=5)


def why(queues: Queues = FAIR, app: Application = APP, nodes: tuple[Node, ...] = NODES, have: int = 3) -> str:
    return waiting.why(app, queues, nodes, wanted=8, have=have, worker=mib(1024))


def used(queues: Queues, name: str, size: Size, **more: Any) -> Queues:
    leaves = (replace(q, used=size, **more) if q.name == name else q for q in queues.leaves)
    return replace(queues, leaves=tuple(leaves))


def test_why_waiting() -> None:
    assert why() == "3 of 8 workers; queue batch at its maximum 50 %; pending 5 x 1.07 GB"
    full = used(CAPACITY, "batch", mib(3584, 4))
    assert why(full) == "3 of 8 workers; queue batch at its maximum 50 %; pending 5 x 1.07 GB"
    limits = {"user_used": {"root": mib(2048)}, "user_limits": {"root": mib(1536, 8)}}
    assert why(used(CAPACITY, "batch", mib(1024), **limits)) == (
        "3 of 8 workers; user root at the limit of queue batch (1.61 GB / 8 cores); pending 5 x 1.07 GB"
    )
    busy = tuple(replace(node, used=mib(3500, 4)) for node in NODES)
    others = used(CAPACITY, "interactive", mib(4096, 4))
    assert why(others, nodes=busy) == (
        "3 of 8 workers; cluster 85 % full, most of it by queue interactive; the most free on one node is "
        "625 MB / 4 cores; pending 5 x 1.07 GB"
    )
    assert why(CAPACITY, nodes=()) == "3 of 8 workers; no node is running; pending 5 x 1.07 GB"
    small = tuple(replace(node, total=mib(512)) for node in NODES)
    assert "no node is large enough (the largest has 537 MB / 1 cores)" in why(CAPACITY, nodes=small)
    assert why(CAPACITY) == "3 of 8 workers; pending 5 x 1.07 GB"
    assert why(CAPACITY, replace(APP, containers=6, pending=3)) == "3 of 8 workers; pending 3 x 1.07 GB; 2 starting"
    assert why(CAPACITY, replace(APP, containers=9, pending=0)) == "3 of 8 workers; 5 starting"


def test_why_the_application_itself_waits() -> None:
    waiting = replace(APP, life=Life.WAITING, containers=0, pending=0)
    assert why(app=waiting, have=0) == (
        "0 of 8 workers; queue batch has not yet given the application master's container"
    )
    told = "[Sat] Application is added and is not yet activated. Queue's AM resource limit exceeded. Details : AM ..."
    assert "at its AM limit of application masters" in why(app=replace(waiting, diagnostics=told), have=0)
    told = "not yet activated.  (Resource request: <memory:2560, vCores:1> exceeds maximum AM resource allowed)."
    assert "at its AM limit of application masters" in why(app=replace(waiting, diagnostics=told), have=0)
    assert "does not know the application" in why(app=replace(APP, life=Life.UNKNOWN))
    assert "has ended" in why(app=replace(APP, life=Life.KILLED))


# ---------------------------------------------------------------- applications and containers


def test_application() -> None:
    told = answer("app")["app"]
    found = read_application(told)
    assert (found.life, found.queue, found.pending, found.containers) == (Life.RUNNING, "batch", 3, 4)
    assert found.tags == ("mayfly", "run-1")
    assert found.submitted_at is not None
    assert found.launched_at is not None
    assert found.ended_at is None
    for state, final, life in [
        ("FINISHED", "SUCCEEDED", Life.SUCCEEDED),
        ("FINISHED", "FAILED", Life.FAILED),
        ("FINISHED", "KILLED", Life.KILLED),
        ("FAILED", "FAILED", Life.FAILED),
        ("KILLED", "KILLED", Life.KILLED),
        ("NEW_SAVING", "UNDEFINED", Life.WAITING),
        ("SOMETHING_NEW", "UNDEFINED", Life.UNKNOWN),
    ]:
        assert read_application({**told, "state": state, "finalStatus": final}).life is life
    assert read_applications({"apps": None}) == ()
    assert read_applications({"apps": {}}) == ()
    assert read_applications({"apps": {"app": told}}) == (found,)
    assert read_application({"id": "x", "memorySeconds": None}).memory_mib_seconds == 0


def test_a_state_of_a_node_that_nobody_knows() -> None:
    (node,) = read_nodes(
        {"nodes": {"node": [{"id": "a:1", "state": "SLEEPING", "usedMemoryMB": 1, "availMemoryMB": 2}]}}
    )
    assert node.state is NodeState.UNKNOWN
    assert node.total == Size(memory=3 * MIB, cores=0)


@pytest.mark.parametrize(
    ("message", "cause", "code"),
    [
        ("Container preempted by scheduler", Cause.PREEMPTED, None),
        ("Container failed during execution, see logs for more information.", Cause.EXITED, None),
        ("Container released on a *lost* node", Cause.NODE_LOST, None),
        ("[2026-11-21 15:35:40.133]Container killed on request. Exit code is 143", Cause.KILLED, 143),
        ("Container exited with a non-zero exit code 137. Error file: prelaunch.err.", Cause.KILLED, 137),
        ("Exception from container-launch.\nExit code: 10\n", Cause.EXITED, 10),
        ("exitCode: -104", Cause.MEMORY, -104),
        ("exit status: -103", Cause.MEMORY, -103),
        ("exit status: -100", Cause.NODE_LOST, -100),
        (
            "Container [pid=1,containerID=c] is running 5B beyond the 'PHYSICAL' memory limit. Exit code is 143",
            Cause.MEMORY,
            143,
        ),
        ("1.1 GB of 1 GB physical memory used", Cause.MEMORY, None),
        ("Container killed by the ApplicationMaster.", Cause.ENDED_BY_US, None),
        ("", Cause.UNKNOWN, None),
        ("something else", Cause.UNKNOWN, None),
    ],
)
def test_how_a_container_ended(message: str, cause: Cause, code: int | None) -> None:
    assert cause_of(message) is cause
    assert code_of(message) == code


def test_the_telling_line() -> None:
    text = "[2026-11-21 15:35:40.133]Exception from container-launch.\nContainer id: c\n[x]Exit code: 10\n"
    assert said(text) == "Exit code: 10"
    assert said("") == ""


def test_account() -> None:
    def container(number: int, state: str, message: str = "", node: str = "http://a:8042") -> Container:
        return Container(id=f"c{number}", state=state, node=node, started_at=10.0, ended_at=12.5, message=message)

    apps = [
        replace(APP, submitted_at=1.0, launched_at=3.5, memory_mib_seconds=100, vcore_seconds=2, preempted=1),
        replace(APP, id="application_1_2", submitted_at=9.0, memory_mib_seconds=50, vcore_seconds=1),
    ]
    containers = [
        container(1, "RUNNING"),
        container(1, "FAILED", "Container preempted by scheduler"),
        container(2, "FAILED", "Exit code: 1"),
        container(3, "SUCCEEDED", node="b:8042"),
    ]
    account = accounts.account(apps, containers)
    assert account.applications == ("application_1_1", "application_1_2")
    assert (account.memory_mib_seconds, account.vcore_seconds, account.queue_wait) == (150, 3, 2.5)
    assert (account.containers_started, account.containers_failed, account.containers_preempted) == (3, 1, 1)
    assert account.queue == "batch"
    assert set(account.nodes) == {"a", "b"}
    assert account.nodes["a"].container_seconds == 5.0
    assert (account.nodes["a"].failed, account.nodes["a"].preempted) == (1, 1)
    assert accounts.account([], []).applications == ()
    assert NOTHING.times(mib(1)) == 0
