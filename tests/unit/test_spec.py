from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from mayfly.backends.base import BACKENDS
from mayfly.contract import Timing, decode, encode
from mayfly.names import MAX_NAME, cluster_name
from mayfly.spec.job import (
    FROM_FILE,
    AssetSchedule,
    ClusterSpec,
    JobFile,
    JobSpec,
    TargetsFile,
    TargetSpec,
    WorkerSpec,
    WorkersRange,
    check_job_name,
)
from mayfly.spec.profiles import ProfilesFile
from mayfly.spec.schemas import json_schema
from mayfly.spec.target import BACKEND_OPTIONS


def job(**keys: Any) -> JobSpec:
    return JobSpec.model_validate(
        {"name": "trips", "folder": Path("/jobs/trips"), **keys}, context=FROM_FILE, by_alias=True, by_name=False
    )


def target(**keys: Any) -> TargetSpec:
    return TargetSpec.model_validate({"name": "here", "backend": "local", **keys}, context=FROM_FILE)


def test_every_key_has_a_default() -> None:
    spec = job()
    assert spec.script == "trips.py"
    assert (spec.target, spec.targets) == ("local", ("local",))
    assert spec.cluster.workers == WorkersRange(minimum=2, maximum=2)
    assert (spec.timeout, spec.stall_timeout, spec.retries) == (6 * 3600.0, 1800.0, 1)


def test_all_keys() -> None:
    spec = job(
        description="d",
        owner="o",
        tags=["a", "b"],
        schedule="0 6 * * *",
        start_date="2026-01-31",
        catchup=True,
        max_active_runs=3,
        script="src/./main.py",
        args=["--year", 2013, "a 'b' \"c\" $(d)\nü"],
        env={"A": 1, "B": "$(x) 'y'"},
        params={"year": {"type": "integer", "minimum": 2000, "default": 2013}},
        target="edge",
        targets=["local", "edge"],
        cluster={
            "workers": {"min": 0, "max": 8},
            "worker": {"cores": 4, "memory": "14 GiB"},
            "dask": {"distributed.worker.memory.spill": 0.8, "distributed": {"comm": {"retry": {"count": 3}}}},
        },
        inputs={"trips": "data/trips"},
        outputs={"table": "gs://bucket/table"},
        timeout="1h30m",
        start_timeout="5m",
        stall_timeout="off",
        retries=0,
        script_memory="2 GB",
        adopt=False,
    )
    assert spec.tags == ("a", "b")
    assert spec.start_date == datetime(2026, 1, 31, tzinfo=UTC)
    assert spec.script == "src/main.py"
    assert spec.args == ("--year", "2013", "a 'b' \"c\" $(d)\nü")
    assert spec.env == {"A": "1", "B": "$(x) 'y'"}
    assert spec.cluster == ClusterSpec(
        workers=WorkersRange(minimum=0, maximum=8),
        worker=WorkerSpec(cores=4, memory=14 * 2**30),
        dask={"distributed": {"worker": {"memory": {"spill": 0.8}}, "comm": {"retry": {"count": 3}}}},
    )
    assert (spec.timeout, spec.stall_timeout, spec.script_memory) == (5400.0, 0.0, 2 * 10**9)


def test_names_of_loggers_keep_their_dots() -> None:
    logging = {"distributed.worker": "debug", "distributed": {"level": "info"}}
    assert job(cluster={"dask": {"logging": logging}}).cluster.dask == {"logging": logging}


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        job().retries = 3  # type: ignore[misc]


def test_plain_numbers_are_bytes_and_seconds_in_code_but_refused_in_files() -> None:
    assert WorkerSpec(cores=1, memory=10**9).memory == 10**9
    spec = JobSpec(name="trips", folder=Path("/x"), timeout=60.0, stall_timeout=0.0, script_memory=10**9)
    assert (spec.timeout, spec.stall_timeout, spec.script_memory) == (60.0, 0.0, 10**9)
    with pytest.raises(ValidationError, match="60 has no unit"):
        job(timeout=60)
    with pytest.raises(ValidationError, match="1000 has no unit"):
        job(script_memory=1000)


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"memory": -1}, {"memory": True}, {"cores": 0}, {"cores": 1.5}])
def test_code_is_checked_like_files(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WorkerSpec(**wrong)


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"cluster": {"workers": 0}}, "0 workers can do nothing"),
        ({"cluster": {"workers": -2}}, "-2 workers can do nothing"),
        ({"cluster": {"workers": "4"}}, "expected a whole number or {min: 1, max: 8}"),
        ({"cluster": {"workers": True}}, "expected a whole number"),
        ({"cluster": {"workers": {"min": 8, "max": 1}}}, "min (8) is more than max (1)"),
        ({"cluster": {"workers": {"min": -1, "max": 1}}}, "greater than or equal to 0"),
        ({"cluster": {"workers": 10**9}}, "less than or equal to 10000"),
        ({"cluster": {"worker": {"memory": "0 GB"}}}, "more than 0"),
        ({"cluster": {"worker": {"memory": "-4 GB"}}}, "is no size"),
        ({"cluster": {"worker": {"memory": "4 hours"}}}, "unknown unit 'hours'"),
        ({"cluster": {"dask": {"a": 1, "a.b": 2}}}, "'a' is set twice"),
        ({"cluster": {"dask": {"a.b": 1, "a": {"b": 2}}}}, "'a.b' is set twice"),
        ({"schedule": "@dialy"}, "did you mean '@daily'"),
        ({"schedule": 5}, "expected a cron text"),
        ({"schedule": {"assets": []}}, "at least 1 item"),
        ({"start_date": "2026-13-01"}, "is no date"),
        ({"start_date": 20260101}, "is no date"),
        ({"catchup": True}, "needs a schedule and a start_date"),
        ({"catchup": "yes"}, "boolean"),
        ({"schedule": "@continuous", "max_active_runs": 2}, "must be 1 with schedule @continuous"),
        ({"max_active_runs": 0}, "greater than or equal to 1"),
        ({"script": "../other/x.py"}, "is no script"),
        ({"script": "/etc/x.py"}, "is no script"),
        ({"script": "x.sh"}, "is no script"),
        ({"script": "a\\x.py"}, "is no script"),
        ({"args": "--year"}, "tuple"),
        ({"args": [1.10]}, "string"),
        ({"args": ["a\0b"]}, "NUL"),
        ({"env": {"A-B": "1"}}, "is no variable name"),
        ({"env": {"DASK_CONFIG": "x"}}, "set by Mayfly itself"),
        ({"env": {"MAYFLY_CLUSTER": "x"}}, "set by Mayfly itself"),
        ({"env": {"A": True}}, "string"),
        ({"params": {"items": {"type": "string"}}}, "cannot be used in templates"),
        ({"params": {"target": {"type": "string"}}}, "has a field of this name already"),
        ({"params": {"x": {"type": "string", "default": 3}}}, "default 3 is no string"),
        ({"schedule": "@daily", "params": {"x": {"type": "string"}}}, "has no default"),
        ({"targets": ["edge"]}, "is not among targets (edge)"),
        ({"target": "edge", "targets": ["edge", "edge"]}, "twice"),
        ({"target": ""}, "at least 1 character"),
        ({"inputs": {"a b": "x"}}, "cannot be used in templates"),
        ({"inputs": {"a": "~/x"}}, "is no place"),
        ({"inputs": {"a": " "}}, "is no place"),
        ({"outputs": {"a": "x/{{ run_date }}"}}, "put what changes into args"),
        ({"timeout": "-1h"}, "is no duration"),
        ({"timeout": "0s"}, "more than 0"),
        ({"timeout": "14d"}, "14d is too long; at most 13d"),
        ({"start_timeout": "2d"}, "2d is too long; at most 1d"),
        ({"stall_timeout": False}, "or 0 to turn it off"),
        ({"retries": -1}, "greater than or equal to 0"),
        ({"retries": 1.0}, "integer"),
        ({"adopt": 1}, "boolean"),
        ({"notify": [{}]}, "Field required"),
        ({"notify": [{"notifier": "SmtpNotifier"}]}, "write module and class with dots"),
        ({"notify": [{"notifier": "a.B", "on": "never"}]}, "'failure', 'success' or 'always'"),
        ({"notify": [{"notifier": "a.B", "with": {}}]}, "Extra inputs"),
        ({"notify": [{"notifier": "a.B", "args": {"webhook_token": "x"}}]}, "looks like a secret"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_bad_values(keys: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        job(**keys)
    assert part in str(caught.value)


def test_start_date_keeps_its_zone() -> None:
    spec = job(start_date="2026-01-31T06:00:00+01:00")
    assert spec.start_date == datetime(2026, 1, 31, 6, tzinfo=timezone(timedelta(hours=1)))


def test_schedule_by_assets() -> None:
    assert job(schedule={"assets": ["gs://b/t"]}).schedule == AssetSchedule(assets=("gs://b/t",))


@pytest.mark.parametrize("name", ["trips", "a", "daily-trips", "my_job", "trips2", "a" * 33])
def test_job_names_that_become_cluster_names(name: str) -> None:
    from mayfly.contract import Identity

    identity = Identity(installation="i", dag_id=name, run_id="r", group="g")
    made = cluster_name(prefix="mayfly", job=check_job_name(name), identity=identity, generation=1)
    assert len(made) <= MAX_NAME
    assert made.replace("-", "").isalnum()
    assert made == made.lower()


@pytest.mark.parametrize(
    "name",
    ["", "Trips", "2trips", "-trips", "trips-", "my--job", "my__job", "my job", "a.b", "a/b", "über", "a\n", "a" * 34],
)
def test_job_names_that_do_not(name: str) -> None:
    with pytest.raises(ValueError):
        check_job_name(name)


def test_a_longer_prefix_leaves_less_for_the_name() -> None:
    check_job_name("a" * 26, prefix="mayfly-team-x")
    with pytest.raises(ValueError, match="at most 26 fit"):
        check_job_name("a" * 27, prefix="mayfly-team-x")


# ---------------------------------------------------------------- targets


def test_freeze_makes_places_absolute(tmp_path: Path) -> None:
    frozen = target(python=".venv/bin/python").freeze(tmp_path)
    assert frozen.staging == f"file://{tmp_path}/.mayfly/staging"
    assert frozen.python == f"{tmp_path}/.venv/bin/python"
    assert frozen.timing == Timing(poll_inline=0.2), "a folder may be looked at often"
    assert decode(type(frozen), encode(frozen)) == frozen


def test_freeze_takes_any_folder_literally(tmp_path: Path) -> None:
    home = tmp_path / "my project ü #1%20"
    assert target().freeze(home).staging == f"file://{home}/.mayfly/staging"


def test_freeze_keeps_urls_commands_caps_and_options(tmp_path: Path) -> None:
    frozen = target(
        staging="gs://bucket/mayfly/",
        python="python3.11",
        max_workers=4,
        max_worker_memory="8 GB",
        options={"state_dir": "/var/lib/mayfly"},
        connection="gcp",
        prefix="team-a",
    ).freeze(tmp_path)
    assert (frozen.staging, frozen.python, frozen.prefix) == ("gs://bucket/mayfly", "python3.11", "team-a")
    assert (frozen.max_workers, frozen.max_worker_memory) == (4, 8 * 10**9)
    assert frozen.options == {"state_dir": "/var/lib/mayfly"}
    assert frozen.connection == "gcp"


def test_timing() -> None:
    frozen = target(timing={"poll": [{"every": "1s", "until": "1m"}, {"every": "5s"}], "status": "500ms"}).freeze(
        Path("/")
    )
    assert frozen.timing == Timing(poll=((60.0, 1.0), (1e12, 5.0)), status=0.5, poll_inline=0.2)
    assert target(timing={"poll_inline": "3s"}).freeze(Path("/")).timing.poll_inline == 3.0
    assert target(staging="gs://bucket").freeze(Path("/")).timing.poll_inline == 1.0


def test_parts_of_ones_own() -> None:
    spec = target(backend="tests.fakes:DiesDuringCreate", launcher="mine:Launcher", options={"anything": [1]})
    assert spec.freeze(Path("/")).backend == "tests.fakes:DiesDuringCreate"
    assert spec.freeze(Path("/")).timing.lease_ttl == 3600.0


def test_every_backend_is_known() -> None:
    for name in BACKENDS:
        given = {"staging": "gs://acme/x", "gcp": {"project": "acme-data", "region": "europe-west3"}}
        assert target(backend=name, **(given if name == "dataproc" else {})).backend == name
    assert set(BACKEND_OPTIONS) <= set(BACKENDS)


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"backend": "dataprocc"}, 'is not known; allowed: dataproc, local, or "module:Class"'),
        ({"launcher": "yran"}, "allowed: processes"),
        ({"prefix": "Mayfly"}, "cannot begin a cluster name"),
        ({"prefix": "m" * 21}, "cannot begin a cluster name"),
        ({"prefix": "m-"}, "cannot begin a cluster name"),
        ({"staging": "s3://user:pass@host/x"}, "holds a password"),
        ({"staging": "~/x"}, "is no place"),
        ({"staging": ""}, "is no place"),
        ({"options": {"client_secret": "x"}}, "looks like a secret"),
        ({"options": {"state_dri": "x"}}, "no such option; allowed: state_dir"),
        ({"max_workers": 0}, "greater than or equal to 1"),
        ({"name": "GCP"}, "pattern"),
        ({"timing": {"poll": []}}, "at least 1 item"),
        ({"timing": {"status": "0s"}}, "more than 0"),
    ],
)
def test_bad_targets(keys: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        target(**keys)
    assert part in str(caught.value)


def test_secrets_are_found_in_nested_options() -> None:
    with pytest.raises(ValidationError, match="looks like a secret"):
        target(backend="a:B", options={"auth": {"password": "x"}})


# ---------------------------------------------------------------- schemas


@pytest.mark.parametrize("model", [JobFile, ProfilesFile, TargetsFile])
def test_schemas_are_schemas(model: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(model, title="t"))


def test_the_schema_agrees_with_the_models() -> None:
    validator = jsonschema.Draft202012Validator(json_schema(JobFile, title="t"))
    good: list[dict[str, Any]] = [
        {},
        {"cluster": {"workers": 4, "worker": {"cores": 1, "memory": "14 GB"}}},
        {"cluster": {"workers": {"min": 1, "max": 4}}},
        {"cluster": {"yarn": {"queue": "root.batch", "node_label": "ssd", "priority": 3}}},
        {"stall_timeout": 0, "timeout": "1h30m", "script_memory": "1 GiB"},
        {"stall_timeout": "off", "start_date": "2026-01-31", "schedule": {"assets": ["a"]}},
        {"args": ["a", 1], "env": {"A": 1}, "params": {"x": {"type": ["string", "null"], "default": None}}},
        {"script": "src/main.py"},
        {"notify": [{"notifier": "a.B"}, {"notifier": "a.b.C", "args": {"to": ["x"]}, "on": "always"}]},
    ]
    bad: list[dict[str, Any]] = [
        {"colour": 1},
        {"cluster": {"workers": 0}},
        {"cluster": {"worker": {"memory": 14}}},
        {"cluster": {"yarn": {"priority": -1}}},
        {"cluster": {"yarn": {"que": "batch"}}},
        {"cluster": {"workers": {"minimum": 1, "maximum": 4}}},
        {"timeout": 90},
        {"timeout": "90"},
        {"retries": -1},
        {"params": {"x": {"typ": "string"}}},
        {"notify": [{"notifier": "a.B", "on": "never"}]},
    ]
    for document in good:
        job(**document)
        validator.validate(document)
    for document in bad:
        with pytest.raises(ValidationError):
            job(**document)
        assert not validator.is_valid(document), document


def test_defaults_in_the_schema_are_as_a_file_would_say_them() -> None:
    schema = json_schema(JobFile, title="t")
    assert schema["properties"]["timeout"]["default"] == "6h"
    assert schema["$defs"]["WorkerSpec"]["properties"]["memory"]["default"] == "4 GB"
    for node in [schema, *schema["$defs"].values()]:
        for field in node.get("properties", {}).values():
            if "default" in field:
                inner = {**field, "$defs": schema["$defs"]}
                jsonschema.Draft202012Validator(inner).validate(field["default"])


# ---------------------------------------------------------------- import and stability

_PROGRAM = """
import json, sys
from pathlib import Path
from mayfly.spec.schemas import *
from mayfly.spec.job import *
spec = JobSpec(name="trips", folder=Path("/x"), tags=("b", "a"), env={"B": "1", "A": "2"}, inputs={"z": "1", "a": "2"})
heavy = {"airflow", "dask", "distributed", "fsspec", "pandas", "yaml", "jinja2"} & set(sys.modules)
print(spec.model_dump_json(), json.dumps(json_schema(JobFile, title="t")), sorted(heavy), sep="\\n")
"""


def _output(seed: str) -> list[str]:
    import mayfly

    environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(mayfly.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_same_bytes_under_any_hash_seed_and_nothing_heavy_imported() -> None:
    first, second = _output("1"), _output("2")
    assert first == second
    assert json.loads(first[0])["tags"] == ["b", "a"]
    assert first[2] == "[]"
