"""Whatever stands in a job.yaml: a job, or one SpecError with a place. Nothing else ever comes out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import SpecError
from mayfly.project.loading import Project
from mayfly.spec.job import JobFile, JobSpec


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "jobs" / "trips").mkdir(parents=True)
        (home / "config").mkdir()
        (home / "jobs" / "trips" / "trips.py").write_text("print(1)\n")
        yield Project(home)


def read(project: Project, text: str) -> JobSpec | None:
    path = project.home / "jobs" / "trips" / "job.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        return project.job("trips")
    except SpecError as error:
        assert error.file == "jobs/trips/job.yaml"
        assert error.line is None or 1 <= error.line <= len(text.splitlines()) + 2
        assert len(error.message) > 5
        return None


KEYS = st.sampled_from(
    [*JobFile.model_fields, "workers", "worker", "memory", "cores", "dask", "min", "max", "assets", "type", "x"]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=10),
        st.sampled_from(["1 GB", "2h", "@daily", "0 0 * * *", "local", "trips.py", "off", "{{ inputs.x }}", "integer"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@given(document=st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_document(project: Project, document: dict[str, Any]) -> None:
    read(project, yaml.safe_dump(document, allow_unicode=True))


@given(text=st.text(max_size=200))
def test_any_text(project: Project, text: str) -> None:
    read(project, text)


@given(text=st.text(alphabet="a:-[]{}&*!|>'\"%@`#?,\n\t 01.~<", max_size=60))
def test_any_punctuation(project: Project, text: str) -> None:
    read(project, text)


@given(document=st.dictionaries(KEYS, VALUES, max_size=6))
def test_what_is_read_survives_json(project: Project, document: dict[str, Any]) -> None:
    job = read(project, yaml.safe_dump(document, allow_unicode=True))
    if job is not None:
        assert JobSpec.model_validate_json(job.model_dump_json(), by_name=True) == job
