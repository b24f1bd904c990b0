from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mayfly.contract import YarnPlan
from mayfly.errors import InputError, SpecError
from mayfly.project.loading import Project, script_problem

ROOT = Path(__file__).parents[2]
Write = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "config").mkdir()
    return Project(tmp_path)


def add(project: Project, name: str, text: str = "description: d\n", script: str | None = "") -> Path:
    folder = project.home / "jobs" / name
    folder.mkdir()
    (folder / "job.yaml").write_text(text, encoding="utf-8")
    if script is not None:
        (folder / (script or f"{name}.py")).write_text("print(1)\n")
    return folder


def error_of(project: Project, name: str = "trips") -> SpecError:
    with pytest.raises(SpecError) as caught:
        project.job(name)
    return caught.value


# ---------------------------------------------------------------- finding the project


def test_found_above_or_beside_the_start(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.home / "dags" / "team").mkdir(parents=True)
    assert Project.find(project.home / "dags" / "team") == project
    monkeypatch.chdir(project.home / "jobs")
    assert Project.find() == project


def test_found_by_airflows_dag_folder(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(project.home))
    assert Project.find() == project


def test_mayfly_home_wins(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "jobs").mkdir()
    monkeypatch.setenv("MAYFLY_HOME", str(other))
    assert Project.find(project.home) == Project(other)
    monkeypatch.setenv("MAYFLY_HOME", str(other / "jobs"))
    with pytest.raises(InputError, match="has no folder jobs/"):
        Project.find(project.home)


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MAYFLY_HOME"):
        Project.find(tmp_path)


def test_this_repository_is_a_project_and_all_is_well() -> None:
    project = Project.find(ROOT / "dags")
    assert project.home == ROOT
    jobs, errors = project.jobs()
    assert errors == []
    assert "flights" in jobs
    assert project.frozen_target("local").staging == f"file://{ROOT}/.mayfly/staging"


@pytest.mark.parametrize(
    "path", [*ROOT.glob("jobs/*/job.yaml"), *ROOT.glob("config/*.yaml")], ids=lambda p: p.parent.name
)
def test_the_first_line_names_a_schema_that_is_there(path: Path) -> None:
    mark, _, schema = path.read_text().splitlines()[0].partition("$schema=")
    assert mark == "# yaml-language-server: "
    assert (path.parent / schema).is_file()


# ---------------------------------------------------------------- one error: file, line, key, allowed, nearest


@pytest.mark.parametrize(
    ("text", "line", "key", "parts"),
    [
        ("a: 1\n", 1, "a", ["unknown key", "allowed: adopt, args"]),
        ("tags: [a]\ntimeot: 1h\n", 2, "timeot", ["did you mean 'timeout'?"]),
        ("cluster:\n  worker:\n    memroy: 1 GB\n", 3, "cluster.worker.memroy", ["'memory'", "allowed: cores, memory"]),
        ("cluster:\n  worker:\n    memory: 14\n", 3, "cluster.worker.memory", ["14 has no unit", "14 GB"]),
        ("cluster:\n  worker: {memory: 14 GBB}\n", 2, "cluster.worker.memory", ["'GBB'", "did you mean 'GB'?"]),
        ("cluster:\n  worker: {memory: 0 GB}\n", 2, "cluster.worker.memory", ["more than 0"]),
        ("cluster:\n  worker: {memory: -1 GB}\n", 2, "cluster.worker.memory", ["is no size"]),
        ("\ncluster:\n  workers: {min: 3, max: 1}\n", 3, "cluster.workers", ["min (3) is more than max (1)"]),
        ("cluster:\n  workers: {mni: 3, max: 1}\n", 2, "cluster.workers.min", ["missing", "did you mean 'min'?"]),
        ("cluster:\n  workers: {minimum: 1, max: 1}\n", 2, "cluster.workers.min", ["missing"]),
        ("cluster: 3\n", 1, "cluster", ["expected keys and values, got 3"]),
        ("args: --year\n", 1, "args", ["expected a list", '"--year"']),
        ("args:\n- a\n- 1.10\n", 3, "args[1]", ['put it in quotes: "1.1"']),
        ("args:\n- {a: 1}\n", 2, "args[0]", ["expected text"]),
        ("env:\n  A: true\n", 2, "env.A", ['put it in quotes: "true"']),
        ("env:\n  A-B: x\n", 2, "env.A-B", ["is no variable name"]),
        ("params:\n  x:\n    typ: string\n", 3, "params.x.typ", ["did you mean 'type'?"]),
        ("params:\n  x:\n    type: strng\n", 3, "params.x.type", ["'string', 'integer'"]),
        ("params:\n  x: {type: integer, default: a}\n", 2, "params.x", ['default "a" is no integer']),
        ("schedule:\n  asets: [a]\n", 1, "schedule.assets", ["missing", "did you mean 'assets'?"]),
        ("schedule: '0 25 * * *'\n", 1, "schedule", ["'25' is no hour; allowed: 0-23"]),
        ("schedule: @daily\n", 1, "", ["put text that begins with @ in quotes"]),
        ("owner: x\ncatchup: true\n", 2, "catchup", ["needs a schedule"]),
        ("retries: 11\n", 1, "retries", ["must be 10 or less, got 11"]),
        ("tags: 3\n", 1, "tags", ["expected a list"]),
        ("name: trips\n", 1, "name", ["the folder gives the job its name"]),
        ("target: locall\n", 1, "target", ["unknown target 'locall'", "did you mean 'local'?", "config/targets.yaml"]),
        ("target: local\ntargets:\n- local\n- cloud\n", 4, "targets.1", ["unknown target 'cloud'", "allowed: local"]),
        ("script: tripps.py\n", 1, "script", ["no script 'tripps.py'", "did you mean 'trips.py'?"]),
    ],
)
def test_errors_say_where_what_and_what_else(
    project: Project, text: str, line: int, key: str, parts: list[str]
) -> None:
    add(project, "trips", text)
    error = error_of(project)
    assert (error.file, error.line, error.key) == ("jobs/trips/job.yaml", line, key)
    assert str(error).startswith(f"jobs/trips/job.yaml:{line}: ")
    for part in parts:
        assert part in str(error)


def test_all_that_is_wrong_in_a_file_is_told_at_once(project: Project) -> None:
    add(project, "trips", "retries: -1\ncluster:\n  wrkers: 3\n  worker:\n    memory: 14\n")
    lines = str(error_of(project)).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["jobs/trips/job.yaml:1", "retries"],
        ["jobs/trips/job.yaml:3", "cluster.wrkers"],
        ["jobs/trips/job.yaml:5", "cluster.worker.memory"],
    ]


# ---------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("", 1, "is empty"),
        ("# only a comment\n", 1, "is empty"),
        ("null\n", 1, "is empty"),
        ("- a\n- b\n", 1, "is a list"),
        ("just text\n", 1, "is a single value"),
        ("owner: a\ntags: []\nowner: b\n", 3, "'owner' stands here twice"),
        ("cluster:\n  workers: 1\n  workers: 2\n", 3, "'workers' stands here twice"),
        ("a: &x [1]\nb: *x\n", 2, "the alias *x is not allowed"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "the alias *x is not allowed"),
        ("owner: !!python/object/apply:os.system ['true']\n", 1, "python/object/apply:os.system' is not allowed"),
        ("owner: !!python/name:os.system\n", 1, "is not allowed"),
        ("owner: !!binary aGk=\n", 1, "is not allowed"),
        ("tags: !!set {a, b}\n", 1, "is not allowed"),
        ("owner: !mine x\n", 1, "'!mine' is not allowed"),
        ("retries: !!int many\n", 1, "invalid literal"),
        ("1: x\n", 1, "the key 1 is not text"),
        ("? [a, b]\n: x\n", 1, "is not text"),
        ("a: 1\n---\nb: 1\n", 2, "several documents"),
        ("tags: [a\n", 2, "while parsing a flow sequence: "),
        ("args:\n- {{ inputs.x }}\n", 2, "a template needs quotes"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("\tx: 1\n", 1, "spaces, not tabs"),
        ("params:\n  x: {type: number, default: 1.0e999}\n", 2, "too large"),
        ("a: " + "[" * 60 + "]" * 60 + "\n", 1, "nested deeper than 50"),
        ("[" * 100_000, 1, "nested deeper than 50"),
        ("{a: " * 20_000, 1, "nested deeper than 50"),
        ("- " * 60_000, 1, "nested deeper than 50"),
    ],
)
def test_bad_yaml(project: Project, text: str, line: int, part: str) -> None:
    add(project, "trips", text)
    error = error_of(project)
    assert part in error.message
    assert error.line == line


def test_exploding_aliases_are_refused_before_they_explode(project: Project) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    add(project, "trips", "\n".join(levels))
    assert "aliases can explode" in error_of(project).message


def test_five_megabytes_are_refused_unread(project: Project) -> None:
    add(project, "trips", "description: " + "x" * 5_000_000)
    assert error_of(project).message.startswith("the file has 5.0 MB; at most 256 kB")


def test_not_utf8(project: Project) -> None:
    folder = add(project, "trips")
    (folder / "job.yaml").write_bytes(b"owner: \xff\xfe")
    assert "not UTF-8" in error_of(project).message


def test_control_characters(project: Project) -> None:
    add(project, "trips", "owner: a\x00b\n")
    assert error_of(project).file == "jobs/trips/job.yaml"


def test_a_star_in_text_is_no_alias(project: Project) -> None:
    add(project, "trips", 'description: "* a list, and *emphasis*"\nschedule: "*/5 * * * *"\n')
    assert project.job("trips").schedule == "*/5 * * * *"


def test_yaml_1_2_scalars_stay_as_written(project: Project) -> None:
    add(project, "trips", "env: {A: no, B: 12:30, C: 007, D: 2026-01-31, E: off, F: +49, G: 1_000, H: 0x1f, I: -5}\n")
    env = project.job("trips").env
    assert list(env.values()) == ["no", "12:30", "007", "2026-01-31", "off", "+49", "1_000", "0x1f", "-5"]


# ---------------------------------------------------------------- scripts


def test_script_missing(project: Project) -> None:
    add(project, "trips", script=None)
    error = error_of(project)
    assert error.key == "script"
    assert "no script 'trips.py' in trips/" in error.message


def test_script_outside_by_path(project: Project) -> None:
    add(project, "other")
    add(project, "trips", "script: ../other/other.py\n")
    assert "inside the job's folder" in error_of(project).message


def test_script_outside_by_link(project: Project) -> None:
    other = add(project, "other")
    folder = add(project, "trips", script=None)
    (folder / "trips.py").symlink_to(other / "other.py")
    assert "is a link to" in error_of(project).message


def test_script_outside_by_linked_folder(project: Project) -> None:
    other = add(project, "other")
    folder = add(project, "trips", "script: src/other.py\n", script=None)
    (folder / "src").symlink_to(other)
    assert "outside the job's folder" in error_of(project).message


def test_script_behind_links_inside_the_folder(project: Project) -> None:
    folder = add(project, "trips", script="real.py")
    (folder / "trips.py").symlink_to("real.py")
    assert project.job("trips").script == "trips.py"


def test_a_job_folder_that_is_a_link_itself(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    real = tmp_path_factory.mktemp("real")
    (real / "job.yaml").write_text("owner: a\n")
    (real / "trips.py").write_text("print(1)\n")
    (project.home / "jobs" / "trips").symlink_to(real)
    assert project.job("trips").folder == project.home / "jobs" / "trips"


def test_script_is_a_folder_or_a_dangling_link(project: Project) -> None:
    folder = add(project, "trips", script=None)
    (folder / "trips.py").mkdir()
    assert "no script" in error_of(project).message
    assert "no script" in script_problem(folder, "gone.py")
    (folder / "gone.py").symlink_to("nowhere.py")
    assert "no script" in script_problem(folder, "gone.py")


# ---------------------------------------------------------------- names


def test_unknown_job_names_the_nearest(project: Project) -> None:
    add(project, "trips")
    assert "did you mean 'trips'?" in str(error_of(project, "tripps"))


@pytest.mark.parametrize("name", ["Trips", "2trips", "my job", "trips.v2", "x" * 34])
def test_odd_and_long_names(project: Project, name: str) -> None:
    add(project, name)
    assert repr(name) in error_of(project, name).message


def test_of_two_jobs_with_one_cluster_name_one_stays(project: Project) -> None:
    add(project, "my-job")
    add(project, "my_job")
    good, errors = project.jobs()
    assert set(good) == {"my-job"}
    assert "job 'my_job' and job 'my-job' would have the same cluster names" in str(errors[0])
    assert errors[0].file == "jobs/my_job/job.yaml"


def test_a_folder_with_a_wrong_name_takes_nobodys_place(project: Project) -> None:
    add(project, "Trips")
    add(project, "trips")
    good, errors = project.jobs()
    assert set(good) == {"trips"}
    assert [error.file for error in errors] == ["jobs/Trips/job.yaml"]


def test_a_long_prefix_is_told_at_the_job(project: Project) -> None:
    (project.home / "config" / "targets.yaml").write_text(
        "targets:\n  local: {backend: local}\n  team: {backend: local, prefix: a-team-of-ours}\n"
    )
    add(project, "a" * 30, "owner: x\ntargets: [local, team]\n")
    error = error_of(project, "a" * 30)
    assert (error.line, error.key) == (2, "targets.1")
    assert "on target 'team'" in error.message
    assert "at most 25 fit" in error.message


# ---------------------------------------------------------------- neighbours


def test_broken_jobs_break_no_other(project: Project) -> None:
    add(project, "good")
    add(project, "alsogood", "schedule: '@daily'\n")
    add(project, "empty", "")
    add(project, "list", "- a\n")
    add(project, "tabs", "\ta: 1\n")
    add(project, "noscript", script=None)
    (project.home / "jobs" / "unreadable").mkdir()
    (project.home / "jobs" / "unreadable" / "job.yaml").symlink_to("job.yaml")  # a loop
    (project.home / "jobs" / "folder").mkdir()
    (project.home / "jobs" / "folder" / "job.yaml").mkdir()
    (project.home / "jobs" / "old").mkdir()
    (project.home / "jobs" / "old" / "job.yml").write_text("owner: a\n")
    good, errors = project.jobs()
    assert sorted(good) == ["alsogood", "good"]
    assert sorted(error.file for error in errors) == sorted(
        [
            *(f"jobs/{name}/job.yaml" for name in ("empty", "list", "tabs", "noscript", "unreadable", "folder")),
            "jobs/old/job.yml",
        ]
    )


def test_what_is_no_job(project: Project) -> None:
    add(project, "_draft")
    add(project, ".hidden")
    (project.home / "jobs" / "__pycache__").mkdir()
    (project.home / "jobs" / "README.md").write_text("x")
    (project.home / "jobs" / "notes").mkdir()
    assert project.jobs() == ({}, [])


def test_jobs_come_in_order_of_name(project: Project) -> None:
    for name in ("c", "a", "b"):
        add(project, name)
    assert list(project.jobs()[0]) == ["a", "b", "c"]


# ---------------------------------------------------------------- targets

EDGE = "targets:\n  a:\n    backend: local\n    launcher: yarn\n"


def test_a_target_on_yarn(project: Project) -> None:
    path = project.home / "config" / "targets.yaml"
    path.write_text(EDGE)
    assert project.frozen_target("a").yarn == YarnPlan()
    path.write_text(
        EDGE + "    yarn: {queue: root.batch, address: 10.0.0.1, grace: 1m, fast_heartbeat: true,\n"
        "           ports: {scheduler: 8786, dashboard: 8787 - 8789, workers: 30000-30999}}\n"
    )
    assert project.frozen_target("a").yarn == YarnPlan(
        queue="root.batch",
        address="10.0.0.1",
        grace=60.0,
        fast_heartbeat=True,
        scheduler_ports=(8786, 8786),
        dashboard_ports=(8787, 8789),
        worker_ports=(30000, 30999),
    )
    path.write_text("targets: {a: {backend: local}}\n")
    assert project.frozen_target("a").yarn is None


def test_without_a_file_there_is_local(project: Project) -> None:
    assert list(project.targets()) == ["local"]
    assert project.frozen_target("local").staging == f"file://{project.home}/.mayfly/staging"


def test_unknown_target_names_the_nearest(project: Project) -> None:
    with pytest.raises(SpecError, match=r"config/targets.yaml: unknown target 'locl'; did you mean 'local'\?"):
        project.target("locl")


@pytest.mark.parametrize(
    ("text", "line", "key", "part"),
    [
        ("targets:\n  local:\n    backend: locl\n", 3, "targets.local.backend", "allowed: dataproc, local"),
        ("targets:\n  local:\n    backend: local\n    stagin: x\n", 4, "targets.local.stagin", "'staging'"),
        ("targets:\n  local: {}\n", 2, "targets.local.backend", "missing"),
        ("targets: {}\n", 1, "targets", "at least 1"),
        ("targets:\n  Local: {backend: local}\n", 2, "targets.Local", "must match"),
        ("local: {backend: local}\n", 1, "targets", "missing"),
        ("targets:\n  a: {backend: local, options: {state_dri: x}}\n", 2, "targets.a.options.state_dri", "state_dir"),
        ("targets:\n  a: {backend: local, options: {api_token: x}}\n", 2, "targets.a.options", "secret"),
        ("", 1, "", "is empty"),
        (
            "targets:\n  a: {backend: local}\n  b:\n    backend: local\n    yarn: {}\n",
            5,
            "targets.b.yarn",
            "knows no YARN",
        ),
        ("targets:\n  a: {backend: local, launcher: yran}\n", 2, "targets.a.launcher", "allowed: processes, yarn"),
        (EDGE + "    yarn: {que: a}\n", 5, "targets.a.yarn.que", "did you mean 'queue'?"),
        (EDGE + "    yarn: {queue: 'a;b'}\n", 5, "targets.a.yarn.queue", "'a;b' is no queue"),
        (EDGE + "    yarn: {ports: {worker: 1}}\n", 5, "targets.a.yarn.ports.worker", "did you mean 'workers'?"),
        (EDGE + "    yarn: {ports: {workers: 80}}\n", 5, "targets.a.yarn.ports.workers", "80 is no port"),
        (
            EDGE + "    yarn: {ports: {workers: 31000-30000}}\n",
            5,
            "targets.a.yarn.ports.workers",
            "between 1024 and 65535",
        ),
        (
            EDGE + "    yarn: {ports: {workers: 30000-70000}}\n",
            5,
            "targets.a.yarn.ports.workers",
            "between 1024 and 65535",
        ),
        (EDGE + "    yarn: {ports: {workers: true}}\n", 5, "targets.a.yarn.ports.workers", "True is no port"),
        (EDGE + "    yarn: {address: 'https://edge'}\n", 5, "targets.a.yarn.address", "a host name or an IPv4"),
        (EDGE + "    yarn: {grace: 30}\n", 5, "targets.a.yarn.grace", "no unit"),
    ],
)
def test_wrong_targets_file(project: Project, text: str, line: int, key: str, part: str) -> None:
    (project.home / "config" / "targets.yaml").write_text(text)
    add(project, "trips")
    with pytest.raises(SpecError) as caught:
        project.targets()
    assert (caught.value.file, caught.value.line, caught.value.key) == ("config/targets.yaml", line, key)
    assert part in str(caught.value)
    good, errors = project.jobs()
    assert list(good) == ["trips"], "a wrong targets file hides no job"
    assert [error.file for error in errors] == ["config/targets.yaml"]
