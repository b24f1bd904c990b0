"""The demo job, run as its users do, against pandas on the same data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKE_DATA = ROOT / "scripts" / "make_demo_data.py"
GROUP = ["carrier", "origin", "month"]

pytestmark = pytest.mark.timeout(900)


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DASK_", "MAYFLY_"))}
    environment |= {
        "DASK_DISTRIBUTED__DASHBOARD__LINK": "",
        "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__STATUS__TASK_STREAM_LENGTH": "100",
        "PYTHONWARNINGS": "ignore::UserWarning:distributed.node",  # port 8787 may be taken by another test
    }
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "flights"
    made = run(MAKE_DATA, folder)
    assert made.returncode == 0, made.stderr
    assert "336,776 flights" in made.stdout
    return folder


@pytest.fixture(scope="module")
def flights(data: Path) -> pd.DataFrame:
    return pd.concat(map(pd.read_csv, sorted(data.glob("*.csv"))), ignore_index=True)


def expected(flights: pd.DataFrame, *, column: str, months: tuple[int, int], min_flights: int) -> pd.DataFrame:
    """The same numbers, written differently: one group after the other, in plain pandas."""
    rows = []
    for (carrier, origin, month), group in flights[flights["month"].between(*months)].groupby(GROUP):
        delay = group[column].dropna()
        if len(group) < min_flights:
            continue
        rows.append(
            {
                "carrier": carrier,
                "origin": origin,
                "month": month,
                "flights": len(group),
                "counted": len(delay),
                "mean": delay.mean(),
                "median": delay.median(),
                "worst_tenth": delay.quantile(0.9),
                "late": (delay > 15).mean(),
                "cancelled": 1 - len(delay) / len(group),
            }
        )
    return pd.DataFrame(rows).sort_values(GROUP, ignore_index=True)


@pytest.mark.parametrize(
    ("delay", "months", "min_flights"),
    [("arrival", (1, 12), 20), ("departure", (6, 7), 1)],
    ids=["the form's defaults", "summer departures"],
)
def test_flights_agrees_with_pandas(
    data: Path, flights: pd.DataFrame, tmp_path: Path, delay: str, months: tuple[int, int], min_flights: int
) -> None:
    done = run(
        ROOT / "jobs" / "flights" / "flights.py",
        data,
        tmp_path / "delays",
        f"--delay={delay}",
        f"--first-month={months[0]}",
        f"--last-month={months[1]}",
        f"--min-flights={min_flights}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    column = {"arrival": "arr_delay", "departure": "dep_delay"}[delay]
    wanted = expected(flights, column=column, months=months, min_flights=min_flights)
    assert [path.name for path in (tmp_path / "delays").iterdir()] == [f"{delay}.parquet"]
    found = pd.read_parquet(tmp_path / "delays")
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False)
    assert f"{len(wanted)} groups with {wanted['flights'].sum():,} flights" in done.stdout
    assert "JetBlue Airways" in done.stdout  # from the file beside the script


def test_flights_without_any_group_writes_an_empty_table(data: Path, tmp_path: Path) -> None:
    script = ROOT / "jobs" / "flights" / "flights.py"
    done = run(script, data, tmp_path / "delays", "--min-flights=100000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no group has 100000 flights" in done.stdout
    assert len(pd.read_parquet(tmp_path / "delays")) == 0


def test_the_demo_data_is_all_of_the_package(flights: pd.DataFrame) -> None:
    assert len(flights) == 336_776
    assert flights.groupby("month").size().min() > 20_000


def test_making_the_data_again_changes_nothing(data: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in data.iterdir()}
    again = run(MAKE_DATA, data)
    assert again.returncode == 0
    assert "already" in again.stdout
    assert {path.name: path.stat().st_mtime_ns for path in data.iterdir()} == before
    assert [path.name for path in data.parent.iterdir()] == [data.name]  # no temporary folder is left


def test_a_folder_that_is_not_complete_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "flights").mkdir()
    (tmp_path / "flights" / "mine.txt").write_text("keep")
    refused = run(MAKE_DATA, tmp_path / "flights")
    assert refused.returncode == 1
    assert "not complete" in refused.stdout
    assert [path.name for path in (tmp_path / "flights").iterdir()] == ["mine.txt"]


def test_the_job_imports_nothing_of_ours() -> None:
    assert "mayfly" not in (ROOT / "jobs" / "flights" / "flights.py").read_text(encoding="utf-8").lower()
