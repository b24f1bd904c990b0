"""Profiles: below the job's own keys, each by itself; errors with file, line, key and the nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mayfly.contract import FrozenTarget, Identity, Plan
from mayfly.errors import PlanError, SpecError
from mayfly.plan import describe, make_plan
from mayfly.project.loading import Project
from mayfly.spec.job import ClusterSpec, JobSpec
from mayfly.spec.profiles import Profile

ROOT = Path(__file__).parents[2]
GB = 10**9
PROFILES = """
profiles:
  etl:
    description: For tests
    workers: {min: 2, max: 10}
    worker: {cores: 3, memory: 14 GB}
    start_timeout: 15m
    dask:
      distributed.worker.memory: {target: 0.7, spill: 0.8}
      distributed.adaptive.wait-count: 24
    yarn: {queue: batch, priority: 2}
  small:
    worker: {memory: 1 GB}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "jobs" / "trips").mkdir(parents=True)
    (tmp_path / "jobs" / "trips" / "trips.py").write_text("print(1)\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "profiles.yaml").write_text(PROFILES)
    return Project(tmp_path)


def job(project: Project, text: str) -> JobSpec:
    (project.home / "jobs" / "trips" / "job.yaml").write_text(text)
    return project.job("trips")


def refused(project: Project, text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        job(project, text)
    return caught.value


def plan(job: JobSpec) -> Plan:
    return make_plan(
        job=job,
        target=FrozenTarget(name="local", backend="local", launcher="processes", staging="file:///staging"),
        identity=Identity(installation="here", dag_id="trips", run_id="1", group="cluster"),
        generation=1,
        capacity=None,
        home=job.folder.parents[1],
        code="code/a.zip",
        now=0.0,
        owner="0",
    )


def test_all_of_a_profile_arrives(project: Project) -> None:
    cluster = (spec := job(project, "cluster: {profile: etl}\n")).cluster
    assert (cluster.workers.minimum, cluster.workers.maximum) == (2, 10)
    assert (cluster.worker.cores, cluster.worker.memory) == (3, 14 * GB)
    assert cluster.dask == {
        "distributed": {"worker": {"memory": {"target": 0.7, "spill": 0.8}}, "adaptive": {"wait-count": 24}}
    }
    assert (cluster.yarn.queue, cluster.yarn.priority, cluster.yarn.node_label) == ("batch", 2, None)
    assert spec.start_timeout == 900


def test_the_jobs_own_keys_come_first_each_by_itself(project: Project) -> None:
    spec = job(
        project,
        "start_timeout: 1m\ncluster:\n  profile: etl\n  workers: {max: 20}\n  worker: {cores: 1}\n"
        "  dask: {distributed.worker.memory.spill: 0.9, distributed: {worker: {memory: {pause: 0.95}}}}\n"
        "  yarn: {queue: fast, node_label: ssd}\n",
    )
    cluster = spec.cluster
    assert (cluster.workers.minimum, cluster.workers.maximum) == (2, 20)
    assert (cluster.worker.cores, cluster.worker.memory) == (1, 14 * GB)
    assert cluster.dask["distributed"] == {
        "worker": {"memory": {"target": 0.7, "spill": 0.9, "pause": 0.95}},
        "adaptive": {"wait-count": 24},
    }
    assert (cluster.yarn.queue, cluster.yarn.priority, cluster.yarn.node_label) == ("fast", 2, "ssd")
    assert spec.start_timeout == 60
    assert spec.from_profile == (
        "workers.min 2",
        "worker.memory 14 GB",
        "dask.distributed.worker.memory.target 0.7",
        "dask.distributed.adaptive.wait-count 24",
        "yarn.priority 2",
    )


def test_a_number_of_workers_takes_the_place_of_a_range(project: Project) -> None:
    spec = job(project, "cluster: {profile: etl, workers: 4}\n")
    assert (spec.cluster.workers.minimum, spec.cluster.workers.maximum) == (4, 4)
    assert not any(words.startswith("workers") for words in spec.from_profile or ())


def test_what_a_profile_leaves_out_keeps_its_default(project: Project) -> None:
    spec, plain = job(project, "cluster: {profile: small}\n"), ClusterSpec()
    assert spec.cluster.worker.memory == GB
    assert spec.cluster.worker.cores == plain.worker.cores
    assert spec.cluster.workers == plain.workers
    assert spec.start_timeout == 1800


def test_a_job_without_a_profile_is_as_before(project: Project) -> None:
    spec = job(project, "owner: a\n")
    assert (spec.cluster, spec.from_profile, spec.start_timeout) == (ClusterSpec(), None, 1800)
    assert plan(spec).profile == ""


def test_the_plan_says_what_the_profile_gave(project: Project) -> None:
    planned = plan(job(project, "cluster: {profile: etl, workers: 2, dask: {a.b: 1}, yarn: {queue: x, priority: 1}}\n"))
    words = (
        "etl gave worker.cores 3, worker.memory 14 GB, dask.distributed.worker.memory.target 0.7, "
        "dask.distributed.worker.memory.spill 0.8, dask.distributed.adaptive.wait-count 24, start_timeout 15m"
    )
    assert planned.profile == words
    assert f"profile   {words}" in describe(planned)
    assert planned.limits.start == 900


def test_a_profile_that_gave_nothing_says_so(project: Project) -> None:
    spec = job(project, "cluster: {profile: small, worker: {memory: 2 GB}}\n")
    assert plan(spec).profile == "small gave nothing that the job does not say itself"


# ---------------------------------------------------------------- wrong


@pytest.mark.parametrize(
    ("text", "line", "key", "parts"),
    [
        ("owner: a\ncluster:\n  profile: elt\n", 3, "cluster.profile",
         ["unknown profile 'elt'", "did you mean 'etl'?", "allowed: etl, small", "config/profiles.yaml"]),
        ("cluster: {profile: 3}\n", 1, "cluster.profile", ["expected text"]),
        ("cluster: {profile: ''}\n", 1, "cluster.profile", ["at least 1 character"]),
        ("cluster:\n  profile: etl\n  workers: {max: 1}\n", 3, "cluster.workers",
         ["min (2) is more than max (1)", "its profile gave workers.min 2"]),
        ("cluster:\n  profile: etl\n  worker: {memory: 3}\n", 3, "cluster.worker.memory", ["has no unit"]),
        ("cluster:\n  profile: etl\n  dask: {a.b: 1, a: {b: 2}}\n", 3, "cluster.dask", ["'a.b' is set twice"]),
        ("cluster:\n  profile: etl\n  worker: 3\n", 3, "cluster.worker", ["expected keys and values"]),
        ("cluster:\n  profile: etl\n  yarn: {que: a}\n", 3, "cluster.yarn.que", ["did you mean 'queue'?"]),
        ("cluster:\n  yarn: {queue: 'a b'}\n", 2, "cluster.yarn.queue", ["'a b' is no queue"]),
        ("from_profile: [a]\n", 1, "from_profile", ["unknown key"]),
        ("profile_problem: a\n", 1, "profile_problem", ["unknown key"]),
    ],
)  # fmt: skip
def test_a_wrong_job(project: Project, text: str, line: int, key: str, parts: list[str]) -> None:
    error = refused(project, text)
    assert (error.file, error.line, error.key) == ("jobs/trips/job.yaml", line, key)
    for part in parts:
        assert part in str(error)


def test_without_the_file_there_is_no_profile(project: Project) -> None:
    (project.home / "config" / "profiles.yaml").unlink()
    assert project.profiles() == {}
    assert "unknown profile 'etl'; there is none yet" in refused(project, "cluster: {profile: etl}\n").message


@pytest.mark.parametrize(
    ("text", "line", "key", "part"),
    [
        ("profiles:\n  etl:\n    wrkers: 3\n", 3, "profiles.etl.wrkers", "did you mean 'workers'?"),
        ("profiles:\n  etl:\n    worker: {memory: 14}\n", 3, "profiles.etl.worker.memory", "has no unit"),
        ("profiles:\n  etl:\n    workers: {min: 3, max: 1}\n", 3, "profiles.etl.workers", "more than max"),
        ("profiles:\n  etl:\n    workers: {min: 3}\n", 3, "profiles.etl.workers.max", "missing"),
        ("profiles:\n  etl:\n    start_timeout: 2d\n", 3, "profiles.etl.start_timeout", "at most 1d"),
        ("profiles:\n  Etl: {workers: 1}\n", 2, "profiles.Etl", "must match"),
        ("profiles:\n  etl: {profile: ml}\n", 2, "profiles.etl.profile", "unknown key"),
        ("etl: {workers: 1}\n", 1, "profiles", "missing"),
        ("profiles: {}\n", 1, "profiles", "at least 1"),
    ],
)
def test_a_wrong_profiles_file_is_told_and_hides_no_job(
    project: Project, text: str, line: int, key: str, part: str
) -> None:
    job(project, "cluster: {profile: etl}\n")
    (project.home / "config" / "profiles.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        project.profiles()
    assert (caught.value.file, caught.value.line, caught.value.key) == ("config/profiles.yaml", line, key)
    assert part in str(caught.value)
    good, errors = project.jobs()
    assert [error.file for error in errors] == ["config/profiles.yaml"]
    # Its DAG stays, so that a running cluster can be deleted; nothing new can be planned.
    with pytest.raises(PlanError, match=r"config/profiles.yaml is wrong, so profile 'etl' cannot be read"):
        plan(good["trips"])


def test_a_spec_made_in_python_cannot_name_a_profile() -> None:
    with pytest.raises(ValueError, match="profiles are for jobs with a job"):
        JobSpec(name="trips", folder=Path("/x"), cluster=ClusterSpec(profile="etl"))


def test_every_key_of_a_profile_is_one_of_a_cluster() -> None:
    assert set(Profile.model_fields) - {"description", "start_timeout"} < set(ClusterSpec.model_fields)


# ---------------------------------------------------------------- those of this repository


def test_the_shipped_profiles() -> None:
    profiles = Project(ROOT).profiles()
    assert set(profiles) == {"etl", "ml", "analytics", "interactive", "memory-tight"}
    assert (profiles["etl"].worker.cores, profiles["etl"].worker.memory) == (3, 14 * GB)
    tight = profiles["memory-tight"].dask["distributed"]["worker"]["memory"]  # type: ignore[index, call-overload]
    assert tight == {"target": 0.85, "spill": 0.90, "pause": 0.95, "terminate": 0.98}
    for name, profile in profiles.items():
        assert profile.workers is not None and profile.start_timeout is not None
        settings: Any = profile.dask["distributed"]
        if name != "memory-tight":
            assert "worker" not in settings, "Dask's own thresholds"
        adaptive = settings["adaptive"]
        assert adaptive["wait-count"] * float(adaptive["interval"].removesuffix("s")) >= 60
