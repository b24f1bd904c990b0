from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import fsspec
import pytest
from distributed import Scheduler
from fsspec import AbstractFileSystem
from fsspec.registry import _registry

from mayfly.contract import FailureClass, Outcome
from mayfly.driver.preflight import (
    PreflightError,
    compare_versions,
    local_path,
    make_output,
    report,
    run,
    unreadable,
    unwritable,
)
from tests.driver.driving import LIB, PATIENCE, Driving


def test_inputs_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "folder").mkdir()
    inputs = {
        "file": str(tmp_path / "a.csv"),
        "url": f"file://{tmp_path}/a.csv",
        "folder": str(tmp_path / "folder"),
        "glob": f"{tmp_path}/*.csv",
        "odd": str(tmp_path / "odd [1].csv"),
    }
    (tmp_path / "odd [1].csv").write_text("x")
    assert unreadable(inputs) == {}


def test_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    inputs = {"file": str(tmp_path / "a.csv"), "glob": f"{tmp_path}/*.csv", "url": "nonsense://x/y"}
    problems = unreadable(inputs)
    assert set(problems) == set(inputs)
    assert problems["file"] == "does not exist"
    assert problems["glob"] == "no file matches"


def test_inputs_on_other_stores() -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/a.csv", b"x")
    good = {"file": "memory://bucket/a.csv", "folder": "memory://bucket", "glob": "memory://bucket/*.csv"}
    assert unreadable(good) == {}
    assert set(unreadable({"file": "memory://bucket/b.csv", "glob": "memory://bucket/*.txt"})) == {"file", "glob"}


def test_outputs_are_made_and_probed_and_left_clean(tmp_path: Path) -> None:
    folder = make_output(str(tmp_path / "deep" / "out"))
    assert unwritable({"out": folder}) == {}
    assert list(Path(folder).iterdir()) == []


def test_an_output_that_looks_like_a_file_is_not_made_a_folder(tmp_path: Path) -> None:
    assert make_output(f"file://{tmp_path}/new/result.parquet") == str(tmp_path / "new")
    assert not (tmp_path / "new" / "result.parquet").exists()
    (tmp_path / "plain").write_text("a file from an earlier run")
    assert make_output(str(tmp_path / "plain")) == str(tmp_path)


def test_outputs_on_other_stores() -> None:
    folder = make_output("memory://results/run")
    assert unwritable({"out": folder}) == {}
    assert fsspec.filesystem("memory").find("/results") == []


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "out" in unwritable({"out": str(tmp_path / "file" / "below")})


class AnswersNothing(AbstractFileSystem):  # type: ignore[misc]
    """As Arrow's HDFS when no NameNode answers: whatever is asked for is not found, also the root."""

    protocol = ("hdfs", "arrow_hdfs")
    cachable = False

    def info(self, path: str, **kwargs: object) -> dict[str, object]:
        raise FileNotFoundError(2, "No such file or directory", path)

    def ls(self, path: str, detail: bool = True, **kwargs: object) -> list[object]:
        raise OSError(255, "HDFS list directory failed")


class ForgetsItsKeys(AbstractFileSystem):  # type: ignore[misc]
    """As many clients of object stores: who may not look finds nothing, unless a single object is asked for. A folder
    that is made is a bucket."""

    protocol = "s3"
    cachable = False

    def info(self, path: str, **kwargs: object) -> dict[str, object]:
        if path.startswith("lake"):
            raise PermissionError("Forbidden")
        if path.startswith("programs"):
            raise FileNotFoundError(2, "No such file or directory", "/usr/local/bin/keys")
        raise FileNotFoundError("The specified bucket does not exist.")

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        raise AssertionError("a bucket would be made")

    def glob(self, path: str, **kwargs: object) -> list[str]:
        return []


@pytest.fixture
def odd_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, store in {"hdfs": AnswersNothing, "s3": ForgetsItsKeys}.items():
        monkeypatch.setitem(_registry, name, store)


@pytest.mark.usefixtures("odd_stores")
def test_a_store_that_does_not_answer_is_not_an_absent_file() -> None:
    asked = {"file": "hdfs://nn/a", "glob": "hdfs://nn/data/*.csv"}
    for problem in unreadable(asked).values():
        assert problem.startswith("ConnectionError: the NameNode does not answer")


@pytest.mark.usefixtures("odd_stores")
def test_a_store_that_does_not_let_us_in_is_not_an_empty_one() -> None:
    problems = unreadable({"file": "s3://lake/a", "glob": "s3://lake/data/*.csv"})
    assert problems == dict.fromkeys(["file", "glob"], "PermissionError: Forbidden")
    assert "/usr/local/bin/keys" in unreadable({"file": "s3://programs/a"})["file"], "not the object is missing"


@pytest.mark.usefixtures("odd_stores")
def test_a_misspelt_bucket_is_said_and_not_made() -> None:
    problems = unreadable({"file": "s3://laek/a", "glob": "s3://laek/*.csv"})
    assert problems["file"] == "does not exist: The specified bucket does not exist."
    assert problems["glob"].startswith("no file matches: the bucket laek does not exist")
    assert make_output("s3://laek/out") == "s3://laek/out"


def test_a_long_problem_is_one_line_and_bounded() -> None:
    """Arrow names each of the 20 places in which it has looked for Java."""
    (said,) = unreadable({"x": "nonsense" * 100 + "://a"}).values()
    assert "\n" not in said and len(said) < 500


def test_local_paths() -> None:
    assert local_path("file:///a/b") == "/a/b"
    assert local_path("/a/b") == "/a/b"
    assert local_path("gs://a/b") is None


def test_versions_that_differ_are_named() -> None:
    here = {"python": "3.11.7", "dask": "2026.8.0"}
    assert compare_versions(here, {"worker 0": dict(here)}) == ""
    text = compare_versions(here, {"worker 0": {**here, "dask": "2026.7.0"}, "worker 1": {"python": "3.11.7"}})
    assert text == "dask: script and scheduler have 2026.8.0, worker 0 has 2026.7.0, worker 1 has absent"


def test_report_names_versions_and_user() -> None:
    found = report()
    assert found["versions"]["distributed"]
    assert "uid" in found["who"]


def test_a_missing_input_ends_the_job_before_its_script(driving: Driving, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    inputs = {"flights": str(tmp_path / "missing.csv"), "there": str(tmp_path / "there")}
    drive = driving.run({"job.py": "print('it ran')"}, inputs=inputs)
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.INPUT_MISSING
    assert any("missing.csv" in line and "worker 0" in line for line in record.failure.evidence)
    assert not any("'there'" in line for line in record.failure.evidence)
    assert "it ran" not in drive.log()


def test_an_output_in_the_way_ends_the_job_before_its_script(driving: Driving, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    drive = driving.run({"job.py": "print('it ran')"}, outputs={"table": str(tmp_path / "file" / "below")})
    record = drive.record()
    assert record.failure is not None
    assert record.failure.cls is FailureClass.OUTPUT_NOT_WRITABLE
    assert any("uid" in line for line in record.failure.evidence)
    assert "it ran" not in drive.log()


def test_good_inputs_and_outputs_pass(driving: Driving, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    out = tmp_path / "out"
    drive = driving.run(
        {"job.py": f"open({str(out / 'x')!r}, 'w').write('done')"},
        inputs={"in": str(tmp_path / "*.csv")},
        outputs={"out": str(out)},
    )
    assert drive.record().outcome is Outcome.SUCCESS, drive.log()
    assert [path.name for path in out.iterdir()] == ["x"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_somebody_else_is_described() -> None:
    """As workers, another user than the script, see a folder that the script has made."""
    code = """
import os, sys
from mayfly.driver.preflight import unreadable, unwritable
os.setgroups([8000]); os.setgid(65534); os.setuid(65534)
print(unwritable({"o": sys.argv[1]})["o"])
print(unreadable({"i": sys.argv[1] + "/secret/x"})["i"])
"""
    with tempfile.TemporaryDirectory() as parent:  # pytest's own folders are closed to others
        Path(parent).chmod(0o755)
        folder = Path(make_output(f"{parent}/out"))
        folder.chmod(0o755)
        (folder / "secret").mkdir(mode=0o700)
        command = [sys.executable, "-c", code, str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(LIB)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE)
    said = done.stdout
    whose = "belongs to uid 0, gid 0, mode"
    assert f"({folder} {whose} 755; who asks has the groups 8000, 65534)" in said
    assert f"({folder}/secret {whose} 700; who asks has the groups 8000, 65534)" in said


OTHER_WORKER = """
import asyncio, os, sys
from distributed import Worker
from mayfly.driver.preflight import report, unwritable

async def main():
    async with Worker(sys.argv[1], name="0", dashboard=False, local_directory=sys.argv[2]) as worker:
        report(), unwritable({"o": sys.argv[2]})  # imports what they need: the other user may not read this Python
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        print("another", flush=True)
        await worker.finished()

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_output_that_a_worker_of_another_user_cannot_write_names_both_users(tmp_path: Path) -> None:
    """As on Dataproc: the script is root's and makes the folder, workers are yarn's."""
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(LIB)}

    async def check() -> None:
        async with Scheduler(port=0, dashboard=False) as scheduler:
            command = [sys.executable, "-c", OTHER_WORKER, scheduler.address, str(tmp_path)]
            with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as worker:
                try:
                    assert worker.stdout is not None
                    assert await asyncio.to_thread(worker.stdout.readline) == b"another\n"
                    await run(scheduler, inputs={}, outputs={"by_hour": str(out)}, security=None)
                finally:
                    worker.kill()

    with pytest.raises(PreflightError) as caught:
        asyncio.run(check())
    assert caught.value.kind == "output"
    said = str(caught.value)
    assert said.startswith(f"output 'by_hour' = '{out}': worker 0, user ")
    worker, _, maker = said.partition("the folder was made by ")
    assert "(uid 65534)" in worker and maker.startswith("user root (uid 0) on ")
    assert f"cannot write into it: PermissionError: [Errno 13] Permission denied: '{out}/" in maker


def test_files_on_a_node_with_shares_may_be_written_by_their_group(driving: Driving, tmp_path: Path) -> None:
    ready, out = tmp_path / "ready.json", tmp_path / "out"
    ready.write_text('{"shares": ["/shared/a"]}')
    script = f"""
import os
import subprocess
import sys
from pathlib import Path
from dask.distributed import Client
Path({str(out)!r}, "by script").mkdir()
Client().submit(lambda: Path({str(out)!r}, "by worker").write_text("x")).result()
"""
    drive = driving.run({"job.py": script}, outputs={"out": str(out)}, environment={"MAYFLY_READY_FILE": str(ready)})
    assert drive.record().outcome is Outcome.SUCCESS, drive.log()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (out, *out.iterdir())}
    assert modes == {"out": 0o775, "by script": 0o775, "by worker": 0o664}
