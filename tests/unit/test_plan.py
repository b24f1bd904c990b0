"""The plan: deterministic, honest about what it changed, and refusing what no fit can solve."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.backends.base import Capacity
from mayfly.contract import (
    Environment,
    FrozenTarget,
    Identity,
    Limits,
    Plan,
    WorkersPlan,
    YarnPlan,
    decode,
    encode,
)
from mayfly.contract.nodes import GcpPlan
from mayfly.errors import PlanError
from mayfly.names import cluster_name, fold, label, max_job_length
from mayfly.plan import SMALLEST_WORKER, describe, fit, longest_life, make_plan
from mayfly.spec.cluster import JobYarn
from mayfly.spec.job import ClusterSpec, JobSpec, WorkerSpec, WorkersRange

GB = 10**9
TARGET = FrozenTarget(name="local", backend="local", launcher="processes", staging="file:///staging")
IDENTITY = Identity(installation="here", dag_id="trips", run_id="manual__2026-11-21T10:00:00+00:00", group="cluster")


def job(**changes: Any) -> JobSpec:
    given: dict[str, Any] = {
        "name": "trips",
        "folder": Path("/jobs/trips"),
        "script": "trips.py",
        "cluster": ClusterSpec(workers=WorkersRange(minimum=2, maximum=4), worker=WorkerSpec(cores=1, memory=2 * GB)),
    }
    return JobSpec.model_validate(given | changes)


def plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {
        "job": job(),
        "target": TARGET,
        "identity": IDENTITY,
        "generation": 1,
        "capacity": Capacity(cores=8, memory=64 * GB),
        "home": Path("/home/mayfly"),
        "code": "code/abc.zip",
        "now": 1_795_255_200.0,
        "owner": "0123456789abcdef",
    }
    return make_plan(**given | changes)


def test_equal_intentions_have_equal_hashes_whoever_plans_and_when() -> None:
    first, later = plan(), plan(now=1_795_255_999.0, owner="fedcba9876543210")
    assert first.hash == later.hash
    assert first.name == later.name
    assert decode(Plan, encode(first)) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"job": job(timeout=60.0)},
        {"job": job(env={"A": "b"})},
        {"job": job(inputs={"trips": "data/trips"})},
        {"code": "code/other.zip"},
        {"target": replace(TARGET, python="/usr/bin/python3")},
        {"capacity": Capacity(cores=2, memory=64 * GB)},
        {"environment": Environment(path="envs/a.tar.gz", sha256="a", bytes=1, python="3.11.7")},
    ],
)
def test_another_intention_has_another_hash(changes: dict[str, Any]) -> None:
    assert plan(**changes).hash != plan().hash


def test_each_part_of_the_identity_changes_the_name() -> None:
    others = [
        replace(IDENTITY, installation="there"),
        replace(IDENTITY, dag_id="other"),
        replace(IDENTITY, run_id="manual__2"),
        replace(IDENTITY, group="second"),
        replace(IDENTITY, map_index=0),
    ]
    names = {plan(identity=identity).name for identity in [IDENTITY, *others]}
    assert len(names) == 6
    assert plan(generation=2).name not in names
    assert plan(generation=2).run == plan().run


@given(
    job_name=st.from_regex(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", fullmatch=True),
    run_id=st.text(max_size=300),
    generation=st.integers(1, 1000),
)
def test_names_keep_to_the_strictest_backend(job_name: str, run_id: str, generation: int) -> None:
    identity = replace(IDENTITY, run_id=run_id)
    name = cluster_name(prefix="mayfly", job=job_name, identity=identity, generation=generation)
    assert re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", name)
    assert (len(name) <= 51) == (len(fold(job_name)) <= max_job_length("mayfly"))


@given(st.text(max_size=200))
def test_labels_are_allowed_everywhere(value: str) -> None:
    assert re.fullmatch(r"[a-z0-9_-]{1,63}", label(value)) or value == ""


def test_different_values_have_different_labels() -> None:
    assert label("my job") != label("my/job") != label("my-job")
    assert label("a" * 100) != label("a" * 101)


def test_a_job_may_not_run_where_it_was_not_allowed() -> None:
    with pytest.raises(PlanError, match=r"'trips' may not run on target 'edge'; allowed: local"):
        plan(target=replace(TARGET, name="edge"))


def test_a_name_that_is_too_long_says_how_long_it_may_be() -> None:
    with pytest.raises(PlanError, match=r"51 are allowed.*may have 29"):
        plan(target=replace(TARGET, prefix="data-eng-x"), job=job(name="a" * 30))


def test_a_laptop_gets_what_it_can_hold_and_the_plan_says_so() -> None:
    asked = WorkersPlan(minimum=4, maximum=4, cores=3, memory=14 * GB)
    fitted, notes = fit(asked, target=TARGET, capacity=Capacity(cores=6, memory=8 * GB))
    assert fitted == WorkersPlan(minimum=2, maximum=2, cores=3, memory=4 * GB)
    assert notes == ("target local: asked 4 x 3 cores / 14 GB, fitted 2 x 3 cores / 4 GB",)


def test_what_fits_is_left_alone() -> None:
    made = plan()
    assert made.workers == made.asked
    assert made.notes == ()


def test_the_targets_own_caps_count_where_machines_are_made_to_measure() -> None:
    asked = WorkersPlan(minimum=4, maximum=8, cores=3, memory=14 * GB)
    capped = replace(TARGET, max_workers=6, max_worker_memory=10 * GB)
    fitted, notes = fit(asked, target=capped, capacity=None)
    assert fitted == WorkersPlan(minimum=4, maximum=6, cores=3, memory=10 * GB)
    assert notes


@given(
    minimum=st.integers(1, 100),
    extra=st.integers(0, 100),
    cores=st.integers(1, 128),
    memory=st.integers(10**6, 10**12),
    capacity=st.builds(Capacity, cores=st.integers(1, 256), memory=st.integers(10**6, 10**13)),
)
def test_a_fit_never_exceeds_what_was_asked_or_what_is_there(
    minimum: int, extra: int, cores: int, memory: int, capacity: Capacity
) -> None:
    asked = WorkersPlan(minimum=minimum, maximum=minimum + extra, cores=cores, memory=memory)
    try:
        fitted, _ = fit(asked, target=TARGET, capacity=capacity)
    except PlanError:
        assert capacity.memory < min(memory, SMALLEST_WORKER)
        return
    assert 1 <= fitted.minimum <= fitted.maximum <= asked.maximum
    assert fitted.minimum <= asked.minimum
    assert 1 <= fitted.cores <= asked.cores
    assert fitted.maximum * fitted.cores <= max(capacity.cores, fitted.cores)
    assert min(memory, SMALLEST_WORKER) <= fitted.memory <= asked.memory
    assert fitted.maximum * fitted.memory <= capacity.memory


def test_what_no_fit_can_solve_is_refused() -> None:
    with pytest.raises(PlanError, match=r"has 100 MB for a worker; the smallest that can run needs 268 MB"):
        plan(capacity=Capacity(cores=2, memory=100 * 10**6))
    with pytest.raises(PlanError, match=r"script_memory is 100 GB, target 'local' has 64 GB"):
        plan(job=job(script_memory=100 * GB))


def test_expiry_comes_after_every_deadline() -> None:
    limits = Limits(start=300.0, job=3600.0, stall=0.0)
    assert longest_life(limits, jobs=1, attempts=1) > 300 + 3600 + limits.collect + limits.delete
    assert longest_life(limits, jobs=2, attempts=3) - longest_life(limits, jobs=2, attempts=2) == 2 * 3900
    made = plan()
    assert made.expires_at > made.created_at + made.limits.start + made.limits.job
    assert plan(max_age=900.0).expires_at == made.created_at + 900


def test_relative_places_are_below_the_home_and_others_stay() -> None:
    made = plan(job=job(inputs={"a": "data/a", "b": "gs://bucket/b", "c": "/shared/c"}))
    assert made.inputs == {"a": "/home/mayfly/data/a", "b": "gs://bucket/b", "c": "/shared/c"}


def test_relative_places_are_where_the_target_has_its_data() -> None:
    target = replace(TARGET, data="gs://lake/demo")
    made = plan(job=job(inputs={"a": "data/a", "c": "/shared/c"}, outputs={"o": "results"}), target=target)
    assert made.inputs == {"a": "gs://lake/demo/data/a", "c": "/shared/c"}
    assert made.outputs == {"o": "gs://lake/demo/results"}


def test_machines_elsewhere_have_no_folder_of_this_project() -> None:
    target = replace(TARGET, gcp=GcpPlan(project="p", region="r"))
    with pytest.raises(PlanError, match=r"a: 'data/a' is a relative path.*target 'local'.*`data: gs://"):
        plan(job=job(inputs={"a": "data/a"}), target=target)


def test_the_plan_in_words_names_what_a_person_asks_first() -> None:
    text = "\n".join(describe(plan(job=job(stall_timeout=0.0))))
    for part in ("mayfly-trips-", "2 to 4 x 1 cores / 2 GB", "stall off", "expires   2026-11-2", "0.00 USD"):
        assert part in text, text


# ---------------------------------------------------------------- YARN

EDGE = replace(TARGET, launcher="yarn", yarn=YarnPlan(queue="batch", fast_heartbeat=True, worker_ports=(30000, 30010)))


def yarn_job(**yarn: Any) -> JobSpec:
    workers = WorkersRange(minimum=4, maximum=40)
    worker = WorkerSpec(cores=3, memory=14 * GB)
    return job(cluster=ClusterSpec(workers=workers, worker=worker, yarn=JobYarn(**yarn)))


def test_on_yarn_this_machine_does_not_bound_the_workers() -> None:
    planned = plan(job=yarn_job(), target=EDGE, capacity=Capacity(cores=1, memory=2 * GB))
    assert planned.workers == planned.asked
    assert str(planned.workers) == "4 to 40 x 3 cores / 14 GB"
    assert planned.notes == ()


def test_on_yarn_the_targets_own_caps_count() -> None:
    planned = plan(job=yarn_job(), target=replace(EDGE, max_workers=8, max_worker_memory=7 * GB))
    assert (planned.workers.maximum, planned.workers.memory) == (8, 7 * GB)
    assert "fitted 4 to 8 x 3 cores / 7 GB" in planned.notes[0]


def test_the_script_still_runs_on_this_machine() -> None:
    with pytest.raises(PlanError, match="script_memory is 4 GB"):
        plan(job=job(script_memory=4 * GB), target=EDGE, capacity=Capacity(cores=1, memory=2 * GB))


def test_the_jobs_yarn_comes_before_the_targets() -> None:
    assert plan(job=yarn_job(), target=EDGE).yarn == EDGE.yarn
    asked = plan(job=yarn_job(queue="fast", priority=3, node_label="ssd"), target=EDGE)
    assert asked.yarn == YarnPlan(
        queue="fast", priority=3, node_label="ssd", fast_heartbeat=True, worker_ports=(30000, 30010)
    )
    assert "yarn      queue fast, node label ssd, priority 3, worker ports 30000-30010" in describe(asked)
    assert decode(Plan, encode(asked)) == asked
    assert asked.hash != plan(job=yarn_job(), target=EDGE).hash


def test_a_target_without_yarn_carries_these_keys_and_says_so() -> None:
    planned = plan(job=yarn_job(queue="fast", priority=0), capacity=None)
    assert planned.yarn is None
    assert planned.notes == ("target local has no YARN: cluster.yarn (queue fast, priority 0) is not used",)
    assert not any(line.startswith("yarn") for line in describe(planned))
