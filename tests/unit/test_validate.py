from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.project.checks import Finding, dask_settings, templates
from mayfly.project.loading import Project
from mayfly.project.validate import SCHEMA_FOLDER, check_project, module_owner, validate_project, write_schemas
from mayfly.spec.schemas import schemas

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "jobs" / "trips").mkdir(parents=True)
    (tmp_path / "config").mkdir()
    write(tmp_path, "trips.py", "print(1)\n")
    write(tmp_path, "job.yaml", "owner: a\n")
    return Project(tmp_path)


def write(home: Path, name: str, text: str) -> Path:
    path = home / "jobs" / "trips" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def only(project: Project) -> Finding:
    findings = check_project(project)
    assert len(findings) == 1, findings
    return findings[0]


def test_all_good(project: Project) -> None:
    assert validate_project(project) == (["1 jobs, config: all good"], True)


def test_this_repository_is_valid() -> None:
    lines, ok = validate_project(Project(ROOT))
    assert ok, "\n".join(lines)


def test_wrong_specs_are_errors_with_their_place(project: Project) -> None:
    write(project.home, "job.yaml", "owner: a\ntimeot: 1h\n")
    finding = only(project)
    assert str(finding).startswith("jobs/trips/job.yaml:2: error: timeot: unknown key")
    lines, ok = validate_project(project)
    assert not ok
    assert lines[-1] == "1 jobs, config: 1 errors, 0 warnings"


def test_only_the_named_jobs(project: Project) -> None:
    (project.home / "jobs" / "broken").mkdir()
    (project.home / "jobs" / "broken" / "job.yaml").write_text("")
    assert validate_project(project, ["trips"]) == (["1 job(s): all good"], True)
    assert not validate_project(project, ["broken"])[1]
    lines, ok = validate_project(project, ["tripps"])
    assert not ok
    assert "did you mean 'trips'?" in lines[0]


# ---------------------------------------------------------------- shadowing


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("array.py", "the standard library"),
        ("queue.py", "the standard library"),
        ("dask.py", "an installed package"),
        ("pandas/__init__.py", "an installed package"),
        ("mayfly.py", "Mayfly"),
        ("_yaml.py", "an installed package"),
    ],
)
def test_modules_that_hide_another(project: Project, name: str, owner: str) -> None:
    write(project.home, name, "")
    finding = only(project)
    assert finding.severity == "error"
    assert finding.file == f"jobs/trips/{name.removesuffix('/__init__.py')}"
    assert f"of {owner}" in finding.message


@pytest.mark.parametrize(
    "name", ["helpers.py", "trips_lib/__init__.py", "trips_lib/queue.py", "queue/data.csv", "dask.yaml", "array.csv"]
)
def test_modules_that_hide_nothing(project: Project, name: str) -> None:
    write(project.home, name, "")
    assert check_project(project) == []


@pytest.mark.parametrize("name", ["queue.py", "pandas/__init__.py"])
def test_modules_beside_a_script_in_a_folder_hide_another_too(project: Project, name: str) -> None:
    write(project.home, "job.yaml", "script: sub/run.py\n")
    write(project.home, "sub/run.py", "")
    write(project.home, f"other/{name}", "")
    assert check_project(project) == []
    write(project.home, f"sub/{name}", "")
    finding = only(project)
    assert finding.severity == "error"
    assert finding.file == f"jobs/trips/sub/{name.removesuffix('/__init__.py')}"


def test_the_folder_we_run_in_owns_no_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine_alone.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert module_owner("mine_alone") == ""


# ---------------------------------------------------------------- source code


@pytest.mark.parametrize(
    ("source", "line", "part"),
    [
        ("x = 1\ndef f(:\n", 2, "def f(:"),
        ("x = (\n", 1, "was never closed"),
        ("print 'x'\n", 1, "Missing parentheses"),
        ("  x = 1\n", 1, "indent"),
    ],
)
def test_syntax_errors(project: Project, source: str, line: int, part: str) -> None:
    write(project.home, "trips.py", source)
    finding = only(project)
    assert (finding.severity, finding.file, finding.line) == ("error", "jobs/trips/trips.py", line)
    assert part in finding.message


def test_syntax_errors_of_helpers_in_folders(project: Project) -> None:
    write(project.home, "lib/deep/x.py", "x = (\n")
    assert only(project).file == "jobs/trips/lib/deep/x.py"


@pytest.mark.parametrize("content", [b"x = '\xff'\n", b"x = 1\0\n", b"(" * 5000])
def test_source_that_is_none(project: Project, content: bytes) -> None:
    write(project.home, "trips.py", "").write_bytes(content)
    assert only(project).severity == "error"


def test_warnings_of_the_users_code_are_the_users(project: Project) -> None:
    write(project.home, "trips.py", 'x = "\\d"\nassert (1, "always true")\n')
    assert check_project(project) == []


def test_local_paths_are_warned_of(project: Project, tmp_path: Path) -> None:
    data = tmp_path / "elsewhere" / "data.csv"
    data.parent.mkdir()
    data.write_text("x")
    write(project.home, "trips.py", f"import os\n\nopen({str(data)!r})\n")
    finding = only(project)
    assert (finding.severity, finding.line) == ("warning", 3)
    assert str(data) in finding.message
    assert validate_project(project)[1], "a warning is no error"


@pytest.mark.parametrize("text", ["file://{data}", "../../elsewhere/data.csv", "elsewhere/data.csv"])
def test_local_paths_in_other_words(project: Project, text: str) -> None:
    data = project.home / "elsewhere" / "data.csv"
    data.parent.mkdir()
    data.write_text("x")
    write(project.home, "trips.py", f"path = {text.format(data=data)!r}\n")
    assert "is a path of this machine" in only(project).message


@pytest.mark.parametrize(
    "text",
    [
        "lib/lookup.csv",
        "lookup.csv",
        "/nowhere/at/all.csv",
        "gs://bucket/x",
        "s3://b/tmp",
        "/dev/null",
        "/tmp",
        "a/b",
        "1/2",
        "x\ny/z",
    ],
)
def test_what_is_no_local_path(project: Project, text: str) -> None:
    write(project.home, "lib/lookup.csv", "")
    write(project.home, "lookup.csv", "")
    write(project.home, "trips.py", f"path = {text!r}\n")
    assert check_project(project) == []


def test_absolute_paths_into_the_own_folder_are_fine_here(project: Project) -> None:
    path = write(project.home, "lookup.csv", "")
    write(project.home, "trips.py", f"path = {str(path)!r}\n")
    assert check_project(project) == []


# ---------------------------------------------------------------- templates


def spec_with_args(*args: str) -> str:
    lines = "\n".join(f"- {arg!r}" for arg in args)
    params = "params: {year: {type: integer, default: 1}}"
    return f"inputs: {{trips: a}}\noutputs: {{table: b}}\n{params}\nargs:\n{lines}\n"


@pytest.mark.parametrize(
    "arg",
    [
        "{{ inputs.trips }}",
        "{{ outputs['table'] }}/date={{ run_date }}",
        "--year={{ params.year | int + 1 }}",
        "{{ target }} {{ job }} {{ run_id }} {{ params.target }}",
        "{% for part in inputs.trips.split('/') %}{{ part }}{% endfor %}",
        "{{ params[inputs.trips] }}",
        "no template, ${x} { y }",
    ],
)
def test_good_templates(project: Project, arg: str) -> None:
    write(project.home, "job.yaml", spec_with_args(arg))
    assert check_project(project) == []


@pytest.mark.parametrize(
    ("arg", "severity", "part"),
    [
        ("{{ inputs.trps }}", "error", "there is no inputs.trps; did you mean 'trips'? allowed: trips"),
        ("{{ outputs['x'] }}", "error", "there is no outputs.x; allowed: table"),
        ("{{ params.yaer }}", "error", "did you mean 'year'?"),
        ("{{ input.trips }}", "error", "unknown name 'input'; did you mean 'inputs'?"),
        ("{{ inputs.trips", "error", "is no template"),
        ("{% if x %}", "error", "is no template"),
        ("{{ data_interval_start | ds }}", "warning", "exists in Airflow only"),
        ("{{ ds }}", "warning", "use run_date"),
        ("{{ ti.xcom_pull('a') }}", "warning", "exists in Airflow only"),
    ],
)
def test_bad_templates(project: Project, arg: str, severity: str, part: str) -> None:
    write(project.home, "job.yaml", spec_with_args("x", arg))
    finding = only(project)
    assert (finding.severity, finding.file, finding.line) == (severity, "jobs/trips/job.yaml", 6)
    assert part in finding.message


def test_templates_without_any_names() -> None:
    known = {"params": [], "inputs": [], "outputs": []}
    assert [message for *_, message in templates(["{{ inputs.x }}"], known=known)] == [
        "there is no inputs.x; there is none yet"
    ]


# ---------------------------------------------------------------- settings


def test_misspelt_dask_settings(project: Project) -> None:
    write(
        project.home,
        "job.yaml",
        "cluster:\n  dask:\n    distributed:\n      worker:\n        memory:\n          spil: 0.7\n",
    )
    finding = only(project)
    assert (finding.severity, finding.line) == ("warning", 6)
    assert "did you mean 'distributed.worker.memory.spill'?" in finding.message


@pytest.mark.parametrize(
    "settings",
    [
        {"distributed": {"worker": {"memory": {"spill": 0.7}}}},
        {"distributed": {"scheduler": {"allowed_failures": 3}}},
        {"dataframe": {"shuffle": {"method": "p2p"}}},
        {"my-extension": {"x": 1}},
        {"distributed": {"logging": {"distributed.worker": "debug"}}},
    ],
)
def test_dask_settings_that_are_fine(settings: dict[str, object]) -> None:
    from mayfly.project.validate import _dask_defaults

    assert list(dask_settings(settings, known=_dask_defaults())) == []


def test_secrets_in_env(project: Project) -> None:
    write(project.home, "job.yaml", "env:\n  MODE: x\n  DB_PASSWORD: hunter2\n")
    finding = only(project)
    assert (finding.severity, finding.line, finding.key) == ("warning", 3, "env.DB_PASSWORD")
    assert "hunter2" not in str(finding)


def test_a_schedule_that_never_happens(project: Project) -> None:
    write(project.home, "job.yaml", "schedule: 0 0 31 2 *\n")
    finding = only(project)
    assert (finding.severity, finding.line) == ("error", 1)
    assert "never happens" in finding.message


# ---------------------------------------------------------------- folders


def test_links_that_lead_out(project: Project, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    (project.home / "jobs" / "trips" / "data.txt").symlink_to(tmp_path / "secret.txt")
    finding = only(project)
    assert finding.file == "jobs/trips/data.txt"
    assert "travels with the job" in finding.message


def test_links_to_folders(project: Project, tmp_path: Path) -> None:
    job = project.home / "jobs" / "trips"
    write(project.home, "shared/helpers.py", "X = 1\n")
    (job / "lib").symlink_to("shared")
    (job / "shared" / "up").symlink_to("..")
    assert check_project(project) == []
    (tmp_path / "elsewhere").mkdir()
    (job / "shared" / "data").symlink_to(tmp_path / "elsewhere")
    finding = only(project)
    assert (finding.severity, finding.file) == ("warning", "jobs/trips/shared/data")
    assert f"{tmp_path / 'elsewhere'}, which does not travel" in finding.message


def test_data_in_the_jobs_folder(project: Project) -> None:
    with write(project.home, "big.csv", "").open("wb") as file:
        file.truncate(60 * 10**6)  # a hole: no disk is used
    assert "60 MB" in only(project).message


def test_python_without_a_job_file(project: Project) -> None:
    other = project.home / "jobs" / "other"
    other.mkdir()
    (other / "other.py").write_text("print(1)\n")
    assert only(project).message.startswith("holds Python files but no job.yaml")


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("text", "line", "key", "part"),
    [
        (
            "targets:\n  a:\n    backend: local\n    timing: {lease_ttl: 1m}\n",
            4,
            "timing.lease_ttl",
            "ten poll intervals (30s)",
        ),
        ("targets:\n  a:\n    backend: local\n    python: .venv/bin/python\n", 4, "python", "cannot be started"),
    ],
)
def test_targets_that_will_go_wrong(project: Project, text: str, line: int, key: str, part: str) -> None:
    (project.home / "config" / "targets.yaml").write_text(text)
    write(project.home, "job.yaml", "target: a\n")
    finding = only(project)
    assert (finding.severity, finding.line, finding.key) == ("warning", line, f"targets.a.{key}")
    assert part in finding.message


@pytest.mark.parametrize(
    ("dask", "line", "key", "part"),
    [
        ("distributed.worker.memory.spil: 0.7", 4, "distributed.worker.memory.spil", "did you mean"),
        ("distributed.worker.memory.spill: 70", 4, "distributed.worker.memory.spill", "70 is no share"),
        ("distributed.worker.memory: {target: 0.9, spill: 0.8}", 4, "distributed.worker.memory.target", "never acts"),
        ("distributed.worker.memory.pause: '80%'", 4, "distributed.worker.memory.pause", "'80%' is no share"),
    ],
)
def test_settings_of_profiles_and_jobs_that_will_go_wrong(
    project: Project, dask: str, line: int, key: str, part: str
) -> None:
    (project.home / "config" / "profiles.yaml").write_text(f"profiles:\n  etl:\n    dask:\n      {dask}\n")
    write(project.home, "job.yaml", "owner: a\n")
    finding = only(project)
    assert (finding.severity, finding.file, finding.line) == ("warning", "config/profiles.yaml", line)
    assert finding.key == f"profiles.etl.dask.{key}"
    assert part in finding.message
    (project.home / "config" / "profiles.yaml").unlink()
    write(project.home, "job.yaml", f"owner: a\ncluster:\n  dask:\n    {dask}\n")
    finding = only(project)
    assert (finding.line, finding.key) == (line, f"cluster.dask.{key}")


def test_thresholds_that_are_right_or_off(project: Project) -> None:
    write(
        project.home,
        "job.yaml",
        "cluster: {dask: {distributed.worker.memory: {target: false, spill: 0.9, pause: 0.9, terminate: 1}}}\n",
    )
    assert check_project(project) == []


def test_a_wrong_profiles_file_is_told_once(project: Project) -> None:
    (project.home / "config" / "profiles.yaml").write_text("profiles: {etl: {wrkers: 1}}\n")
    assert only(project).severity == "error"


def test_a_wrong_targets_file_is_told_once(project: Project) -> None:
    (project.home / "config" / "targets.yaml").write_text("targets: {local: {backend: locl}}\n")
    assert only(project).severity == "error"


# ---------------------------------------------------------------- JSON schemas


@pytest.mark.parametrize("name", schemas())
def test_the_committed_schemas_are_of_this_version(name: str) -> None:
    committed = (ROOT / SCHEMA_FOLDER / name).read_text(encoding="utf-8")
    assert committed == schemas()[name], "run `mayfly validate --write-schemas`"


def test_stale_schemas_are_found_and_written(project: Project) -> None:
    written = write_schemas(project.home)
    assert [path.name for path in written] == ["job.schema.json", "profiles.schema.json", "targets.schema.json"]
    assert write_schemas(project.home) == []
    written[0].write_text("{}")
    assert "run `mayfly validate --write-schemas`" in only(project).message
    assert write_schemas(project.home) == [written[0]]
    assert check_project(project) == []
