"""The rows of the matrix: what happens to a run, and how it must end.

`wants` is for all versions, or by version where Airflow itself differs; colours, then scripts begun/ended, clusters
and processes left, receipts of clusters made. A row gets a `Case` and returns what it saw.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import end, lives
from tests.verdict.world import PARTS, Case, Seen, interrupt

Body = Callable[[Case], Seen]
CLOUD = "Dataproc: "
"""Titles of rows that need a cloud begin so."""


@dataclass(frozen=True, kw_only=True)
class Row:
    title: str
    body: Body
    wants: dict[str, str]
    """By Airflow version, or "" for all; several allowed ends are parted by " or "."""
    alone: bool = False
    """Disturbs others: runs after them, one at a time."""
    net: str = ""
    """What catches it where Airflow cannot, or what else is worth knowing."""

    def wanted(self, version: str) -> str:
        return self.wants.get(version, self.wants.get("", ""))


ROWS: list[Row] = []


def row(
    title: str, wants: str = "", *, net: str = "", alone: bool = False, **by_version: str
) -> Callable[[Body], Body]:
    versions = {name.removeprefix("v").replace("_", "."): text for name, text in by_version.items()}

    def add(body: Body) -> Body:
        ROWS.append(Row(title=title, body=body, wants={"": wants, **versions}, net=net, alone=alone))
        return body

    return add


# ---------------------------------------------------------------- one thing fails


@row("all ok", "green · 1/1 · 0 · 1/1")
def _(case: Case) -> Seen:
    return case.trigger().seen()


@row("plan fails", "red · 0/0 · 0 · 0/0")
def _(case: Case) -> Seen:
    return case.trigger(target="refuses-plan").seen()


@row("create fails", "red · 0/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    return case.trigger(target="refuses-create").seen()


@row("create's process killed, once", "green · 1/1 · 0 · 1/1", net="the retry adopts the cluster that was made")
def _(case: Case) -> Seen:
    return case.trigger(target="dies-once").seen()


@row("create's process killed, each time", "red · 0/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    return case.trigger(target="dies-during-create").seen()


@row(
    "create's supervisor killed; its orphan goes on after the receipt",
    "green · 1/1 · 0 · 1/1",
    net="the retry makes the cluster; the orphan's late call is refused, since a deleted name is never made again",
)
def _(case: Case) -> Seen:
    case.trigger(target="creates-late")
    kill_supervisor(case)
    case.end()
    case.allow("create")
    case.at("refused")
    return case.seen()


@row(
    "create's supervisor killed; its orphan goes on during the job",
    "green · 1/1 · 0 · 1/1",
    net="both calls mean the same cluster",
)
def _(case: Case) -> Seen:
    case.trigger(target="creates-late", do="hold")
    kill_supervisor(case)
    case.in_job().allow("create")
    case.at("created")
    return case.go().seen()


def kill_supervisor(case: Case) -> None:
    """SIGKILL to the process that looks after create's; the task itself goes on as an orphan."""
    orphan, supervisor = map(int, case.at("creating").read_text().split())
    assert orphan != os.getpid() != supervisor
    os.kill(supervisor, signal.SIGKILL)


@row("job fails", "red · 1/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    return case.trigger(do="wrong").seen()


@row("collect fails", "green · 1/1 · 0 · 1/1", net="deletes all the same; collect is no part of the verdict")
def _(case: Case) -> Seen:
    return case.trigger(target="collect-fails").seen()


@row("delete fails once", "green · 1/1 · 0 · 1/1")
def _(case: Case) -> Seen:
    return case.trigger(target="delete-fails-once").seen()


@row(
    "delete fails for good",
    "red · 1/1 · 1 · 0/1",
    net="once the cause is gone, `mayfly delete` ends it and writes the receipt (done: 0 left, 1/1)",
)
def _(case: Case) -> Seen:
    seen = case.trigger(target="no-permission").seen()
    repaired(case, case.allow("delete").name())
    return seen


@row(
    "job and delete fail",
    "red · 1/0 · 1 · 0/1",
    net="as above (done: 0 left, 1/1)",
)
def _(case: Case) -> Seen:
    seen = case.trigger(target="no-permission", do="wrong").seen()
    repaired(case, case.allow("delete").name())
    return seen


def repaired(case: Case, name: str) -> None:
    done = case.world.mayfly("delete", name)
    assert done.returncode == 0, done.stderr
    after = case.seen()
    assert (after.left, after.receipts) == (0, "1/1"), after


# ---------------------------------------------------------------- a user's marks


@row("user marks the job failed", "red · 1/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    return case.trigger(do="hold").in_job().mark_task("cluster.run_job", "failed").seen()


@row("user marks the DAG run failed in mid-create", "red · 0/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    case.trigger(target="creates-late").at("creating")
    case.mark("failed").end()
    return case.allow("create").seen()


@row("user marks the DAG run failed in mid-job", "red · 1/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    return case.trigger(do="hold").in_job().mark("failed").seen()


@row(
    "user marks the DAG run failed in mid-delete",
    "green · 1/1 · 0 · 1/1",
    net="the job succeeded and its cluster is gone: Airflow drops a mark that comes when only teardowns are left",
)
def _(case: Case) -> Seen:
    case.trigger(target="deletes-late").at("deleting")
    return case.mark("failed").allow("delete").seen()


@row(
    "user marks the DAG run success in mid-job",
    "green · 1/0 · 0 · 1/1",
    net="the user's word counts; Airflow 3.3 marks a job that is just being queued for its next look skipped: red",
)
def _(case: Case) -> Seen:
    return case.trigger(do="hold").in_job().at_rest().mark("success").seen()


# ---------------------------------------------------------------- a user's clears


REFUSES = "Airflow 3.1 clears this task alone: it refuses, and says to clear the whole group"


@row("clear: the job alone", v3_1_8="red · 1/1 · 0 · 1/1", v3_3_2="green · 2/2 · 0 · 2/2", net=REFUSES)
def _(case: Case) -> Seen:
    return case.trigger().done().clear("cluster.run_job").seen()


@row("clear: the job with downstream", "green · 2/2 · 0 · 2/2")
def _(case: Case) -> Seen:
    return case.trigger().done().clear("cluster.run_job", downstream=True).seen()


@row("clear: plan alone", "green · 1/1 · 0 · 1/1", net="plans a generation that nobody makes")
def _(case: Case) -> Seen:
    return case.trigger().done().clear("cluster.plan").seen()


@row("clear: create alone", "green · 1/1 · 0 · 1/1", net="makes nothing: no job is still to run")
def _(case: Case) -> Seen:
    return case.trigger().done().clear("cluster.create_cluster").seen()


@row("clear: the whole finished run", "green · 2/2 · 0 · 2/2")
def _(case: Case) -> Seen:
    return case.trigger().done().clear_run().seen()


@row(
    "clear: the whole run while the job hangs",
    "green · 1/1 · 0 · 1/1",
    net="the run joins the job that is still running; to have it started anew: `mayfly delete RUN`, then clear",
)
def _(case: Case) -> Seen:
    case.trigger(do="hold").in_job().clear_run()
    case.world.until(lambda: case.run.tries("run_job") > 1 and case.task("run_job") == "up_for_reschedule", "a join")
    return case.go().seen()


@row(
    "clear: the first of two jobs",
    v3_1_8="green · 2/2 · 0 · 1/1",
    v3_3_2="green · 3/3 · 0 · 2/2",
    net="Airflow 3.1 clears it alone: it refuses and is red, but a run has its last tasks' colour; nothing is made",
)
def _(case: Case) -> Seen:
    return case.trigger("two_jobs").done().clear("cluster.first").seen()


@row("clear: one map index alone", v3_1_8="red · 2/2 · 0 · 2/2", v3_3_2="green · 3/3 · 0 · 3/3", net=REFUSES)
def _(case: Case) -> Seen:
    return case.trigger("mapped_two").done().clear(("each.run_job", 0)).seen()


@row("clear: one map index with downstream", "green · 3/3 · 0 · 3/3", net="the other index makes nothing")
def _(case: Case) -> Seen:
    return case.trigger("mapped_two").done().clear(("each.run_job", 0), downstream=True).seen()


@row("clear: only failed", "red · 1/0 · 0 · 1/1", net="Airflow clears run_job and report alone: they refuse")
def _(case: Case) -> Seen:
    return case.trigger(do="wrong").done().clear_run(only_failed=True).seen()


# ---------------------------------------------------------------- processes die


@row("worker killed", "green · 1/1 · 0 · 1/1", net="Dask starts another and repeats the task")
def _(case: Case) -> Seen:
    case.trigger(do="task").in_job()
    worker = case.process("dask worker")
    end(worker)
    case.world.until(lambda: not lives(worker), "its end")
    return case.go().seen()


@row("host killed", "red · 1/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    case.trigger(do="hold").in_job()
    end(case.process("mayfly.driver.host"))
    return case.seen()


@row("driver killed", "red · 1/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    case.trigger(do="hold").in_job()
    end(case.process("-m mayfly.driver file:"))
    return case.seen()


# ---------------------------------------------------------------- shapes of DAGs


@row("mapped group of three, one fails", "red · 3/2 · 0 · 3/3")
def _(case: Case) -> Seen:
    return case.trigger("mapped_three").seen()


@row("empty mapped list", "green · 0/0 · 0 · 0/0")
def _(case: Case) -> Seen:
    return case.trigger("mapped_none").seen()


SKIPPED = "skipped before create began, no cluster is made"


@row("skipped job", "red · 0/0 · 0 · 0/0 or red · 0/0 · 0 · 1/1", net=SKIPPED)
def _(case: Case) -> Seen:
    return case.trigger("skips_red").seen()


@row("skipped job that may be skipped", "green · 0/0 · 0 · 0/0 or green · 0/0 · 0 · 1/1", net=SKIPPED)
def _(case: Case) -> Seen:
    return case.trigger("skips_green").seen()


@row("in a user's DAG with hostile default_args, after a run that failed", "green · 2/2 · 0 · 1/1")
def _(case: Case) -> Seen:
    pool = {"name": "closed", "slots": 0}
    case.world.api.call("POST", "/api/v2/pools", pool)
    past = Case(case.world).trigger("users_own", do="wrong").seen()
    assert past == Seen(colour="red", ran="1/0", left=0, receipts="1/1"), f"the first run: {past}"
    return case.trigger("users_own").seen()


# ---------------------------------------------------------------- Airflow is away


@row("DAG paused in mid-job, shorter than the lease", "green · 1/1 · 0 · 1/1")
def _(case: Case) -> Seen:
    case.trigger("paused_short").in_job().pause(True)
    time.sleep(15.0)
    return case.pause(False).go().seen()


@row(
    "DAG paused in mid-job, longer than the lease",
    "red · 1/0 · 0 · 1/1",
    net="the lease ends the job while paused (0 processes, seen); teardowns run after the unpause, or `mayfly delete`",
)
def _(case: Case) -> Seen:
    case.trigger("paused_long").in_job().pause(True)
    lost(case)
    return case.pause(False).seen()


def lost(case: Case) -> None:
    """Until the driver has given up for want of an orchestrator, and nothing of it runs."""
    attempt = case.dir().attempt("run_job", 1)
    record = case.world.until(attempt.record, "the end of a job whose lease is stale")
    assert record.failure is not None and record.failure.cls == "orchestrator lost", record
    assert case.processes_left() == 0


@row("Ctrl-C in `dags test`", "red · 1/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    with dags_test(case, "inline_once") as process:
        case.in_job()
        interrupt(process)
        code = process.wait(case.world.patience)
    return case.seen("failed" if code else "success")


@row(
    "Ctrl-C twice in `dags test`",
    "red · 1/0 · 0 · 1/1",
    net="the lease ends the job; `mayfly delete` ends the rest (done: what the row shows)",
)
def _(case: Case) -> Seen:
    with dags_test(case, "inline_twice") as process:
        case.in_job()
        interrupt(process)
        time.sleep(1.0)
        interrupt(process)
        code = process.wait(case.world.patience)
    assert case.processes_left() == 0
    case.remark = "a receipt without help" if case.dir().receipt() else "no receipt before `mayfly delete`"
    assert case.world.mayfly("delete", case.name()).returncode == 0
    return case.seen("failed" if code else "success")


@contextmanager
def dags_test(case: Case, dag_id: str) -> Iterator[subprocess.Popen[bytes]]:
    case.dag_id = dag_id
    stack = case.world.stack
    home = stack.home.with_name(dag_id)
    home.mkdir()
    database = home / "airflow.db"
    database.write_bytes(Path(stack.home / "empty.db").read_bytes())
    env = {
        **stack.env,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}?timeout=60",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
    }
    with (home / "out.log").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "dags", "test", dag_id],
            env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=home,
        )  # fmt: skip
    with case.world.hand(process):
        yield process


# ---------------------------------------------------------------- it is 3 a.m.: what the runbook says to type


@row("3 a.m.: create stuck: `mayfly delete RUN`", "red · 0/0 · 0 · 1/1", net="the call that comes late is refused")
def _(case: Case) -> Seen:
    case.trigger(target="creates-late").at("creating")
    assert case.world.mayfly("delete", case.name()).returncode == 0
    return case.allow("create").seen()


@row("3 a.m.: job hung: `mayfly delete RUN`, then clear the whole run", "green · 2/1 · 0 · 2/2")
def _(case: Case) -> Seen:
    case.trigger(do="hold").in_job()
    assert case.name() in case.world.mayfly("ls", "--target", "local").stdout
    assert case.world.mayfly("delete", case.name()).returncode == 0
    assert case.end() == "failed"
    case.cut = case.marks("began")
    return case.clear_run().in_job().go().seen()


@row("3 a.m.: delete red: remove the cause, `mayfly delete RUN`, clear delete and report", "green · 1/1 · 0 · 1/1")
def _(case: Case) -> Seen:
    assert case.trigger(target="no-permission").end() == "failed"
    assert case.world.mayfly("delete", case.name()).returncode == 3
    assert case.allow("delete").world.mayfly("delete", case.name()).returncode == 0
    return case.clear("cluster.delete_cluster", "cluster.report").seen()


@row("3 a.m.: DAG paused: `mayfly delete RUN`, unpause later", "red · 1/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    case.trigger("paused_deleted").in_job().pause(True)
    assert case.world.mayfly("delete", case.name()).returncode == 0
    assert case.processes_left() == 0 and case.dir().receipt() is not None
    return case.pause(False).seen()


@row("3 a.m.: receipt unproven: asked where the cluster never was, then where it is", "red · 1/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    case.trigger(do="hold").in_job()
    elsewhere = {"MAYFLY_STATE_DIR": str(case.world.stack.home.with_name(f"elsewhere-{case.name()}"))}
    wrong = case.world.mayfly("delete", case.name(), **elsewhere)
    assert (wrong.returncode, case.dir().receipt()) == (3, None), wrong.stdout + wrong.stderr
    assert case.world.mayfly("delete", case.name()).returncode == 0
    return case.seen()


@row("scheduler killed and restarted in mid-job", "green · 1/1 · 0 · 1/1", alone=True)
def _(case: Case) -> Seen:
    case.trigger(do="hold").in_job()
    case.world.stack.kill("scheduler")
    time.sleep(5.0)
    case.world.stack.revive()
    return case.go().seen()


@row(
    "Airflow gone for good in mid-job",
    "red · 1/0 · 0 · 1/1",
    net="lease: no process is left (seen); expiry: `mayfly reap` ends the rest and writes the receipt (done)",
    alone=True,
)
def _(case: Case) -> Seen:
    case.trigger("expiring").in_job()
    case.world.stack.stop()
    lost(case)
    expires = case.generations()[0][1].expires_at
    case.world.until(lambda: time.time() > expires, "its expiry")
    assert case.world.mayfly("reap", "--target", "short-lease", "--dry-run").returncode == 3
    assert case.world.mayfly("reap", "--target", "short-lease").returncode == 0
    assert case.world.mayfly("reap", "--target", "short-lease", "--dry-run").returncode == 0
    return case.seen("failed")


# ---------------------------------------------------------------- on a cloud


@row(f"{CLOUD}all ok", "green · 1/1 · 0 · 1/1")
def _(case: Case) -> Seen:
    return case.trigger(target="gcp").seen()


@row(
    f"{CLOUD}create fails",
    "red · 0/0 · 0 · 1/1",
    net="the cluster in ERROR, which would cost on, is explained, then deleted",
)
def _(case: Case) -> Seen:
    return case.trigger(target="gcp-no-room").seen()


@row(f"{CLOUD}job fails", "red · 1/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    return case.trigger(target="gcp", do="wrong").seen()


@row(f"{CLOUD}user marks the DAG run failed in mid-job", "red · 1/0 · 0 · 1/1")
def _(case: Case) -> Seen:
    return case.trigger(target="gcp", do="hold").in_job().mark("failed").seen()


@row(
    f"{CLOUD}delete fails for good",
    "red · 1/1 · 1 · 0/1",
    net="its maximum age; once the permission is back, `mayfly delete` writes the receipt (done: 0 left, 1/1)",
)
def _(case: Case) -> Seen:
    seen = case.trigger(target="gcp-no-permission").seen()
    assert case.world.cloud is not None
    case.world.cloud.permit()
    repaired(case, case.name())
    return seen


def aged(case: Case) -> None:
    """Until the cloud has ended the case's cluster by itself. Time passes fast there, for all clusters."""
    cloud = case.world.cloud
    assert cloud is not None
    cloud.emulator.settings(speed=600.0)
    try:
        case.world.until(lambda: case.name() not in cloud.clusters(), "the end of its time to live")
    finally:
        cloud.emulator.settings(speed=1.0)
    (ended,) = [each for each in cloud.emulator.history() if each["name"] == case.name()]
    assert ended["how_gone"] in ("auto_delete_ttl", "idle_delete_ttl"), ended


@row(
    f"{CLOUD}Airflow gone for good in mid-job",
    "red · 1/0 · 0 · 1/1",
    net="lease: no process is left; maximum age: no cluster is left (seen); `mayfly reap` writes the receipt (done)",
    alone=True,
)
def _(case: Case) -> Seen:
    stack = case.world.stack
    if not stack.processes:  # the row before has ended it
        stack.start(PARTS)
        stack.wait_ready()
    case.trigger("gcp_expiring").in_job()
    stack.stop()
    lost(case)
    assert case.clusters_left() == 1
    aged(case)
    expires = case.generations()[0][1].expires_at
    case.world.until(lambda: time.time() > expires, "its expiry")
    assert case.world.mayfly("reap", "--target", "gcp-short-lease").returncode == 0
    return case.seen("failed")
