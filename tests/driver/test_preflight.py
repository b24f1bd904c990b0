from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.contract import FailureClass, Outcome
from mayfly.driver.preflight import compare_versions, local_path, make_output, report, unreadable, unwritable
from tests.driver.driving import Driving


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
    fsspec = pytest.importorskip("fsspec")
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
    fsspec = pytest.importorskip("fsspec")
    folder = make_output("memory://results/run")
    assert unwritable({"out": folder}) == {}
    assert fsspec.filesystem("memory").find("/results") == []


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "out" in unwritable({"out": str(tmp_path / "file" / "below")})


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
