"""What people mistype: one clear message, exit code 2, nothing made."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from mayfly.cli.terminal import Terminal, age, table

from .conftest import WAITS, Cli

PARAMS = """
args: ["{{ params.rows }}", "{{ ds }}"]
params:
  rows: {type: integer, default: 5, maximum: 10}
  deep: {type: boolean, default: false}
  kind: {type: string, enum: [long, short], default: long}
  note: {type: [string, "null"], default: null}
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "trisp"], ["no job 'trisp'", "did you mean 'trips'?"]),
        (["run", "trips", "--target", "locl"], ["unknown target 'locl'", "did you mean 'local'?"]),
        (["run", "trips", "--param", "rwos=3"], ["no param 'rwos'", "did you mean 'rows'?"]),
        (["run", "trips", "--param", "rows"], ["--param rows", "name=value"]),
        (["run", "trips", "--param", "rows=many"], ["--param rows=many", '"many" is no integer']),
        (["run", "trips", "--param", "rows=11"], ["11 is more than the maximum 10"]),
        (["run", "trips", "--param", "deep=yes"], ["write true or false"]),
        (["run", "trips", "--param", "kind=medium"], ['"medium" is none of ["long", "short"]']),
        (["run", "trips", "--run-date", "31.1.2026"], ["'31.1.2026' is no day", "2026-01-31"]),
        (["plan", "trips"], ["args[1]", "'ds' is undefined", "run_date"]),
        (["delete", "mayfly-trips-0"], ["no run 'mayfly-trips-0'", "mayfly ls"]),
        (["show", "x"], ["no run 'x'", "there are none yet"]),
        (["new", "Trips!"], ["Trips!"]),
        (["new", "trips"], ["trips"]),
        (["validate", "trisp"], []),
        (["ls", "--target", "locl"], ["unknown target 'locl'"]),
        (["frobnicate"], ["invalid choice: 'frobnicate'"]),
        ([], ["usage: mayfly"]),
    ],
)
def test_one_clear_message_and_nothing_is_made(cli: Cli, arguments: list[str], said: list[str]) -> None:
    cli.add_job("trips", WAITS, PARAMS)
    done = cli(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    for words in said:
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not cli.runs()


def test_outside_a_project_it_says_where_to_go(cli: Cli) -> None:
    command = [sys.executable, "-m", "mayfly", "ls"]
    environment = {key: value for key, value in cli.environment.items() if key not in ("MAYFLY_HOME", "AIRFLOW_HOME")}
    environment.pop("AIRFLOW__CORE__DAGS_FOLDER", None)
    done = subprocess.run(command, env=environment, cwd=cli.home.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "MAYFLY_HOME" in done.stderr and "Traceback" not in done.stderr


def test_a_state_folder_that_cannot_be_written(cli: Cli) -> None:
    cli.add_job("trips", WAITS)
    cli.state.write_text("a file, where a folder should be")
    done = cli("run", "trips")
    assert done.returncode == 2
    assert "MAYFLY_STATE_DIR" in done.stderr and "Traceback" not in done.stderr


def test_plan_shows_all_and_makes_nothing(cli: Cli) -> None:
    cli.add_job("trips", WAITS, 'args: ["{{ params.rows }}", "a b"]\nparams: {rows: {type: integer, default: 5}}\n')
    done = cli("plan", "trips", "--param", "rows=7")
    assert done.returncode == 0, done.stderr
    assert "workers   1 x 1 cores / 600 MB" in done.stdout or "0.6 GB" in done.stdout
    assert "trips.py '7' 'a b'" in done.stdout
    assert not cli.runs()


def test_one_silent_target_does_not_hide_the_others(cli: Cli) -> None:
    targets = cli.home / "config" / "targets.yaml"
    targets.write_text(targets.read_text() + "  broken: {backend: local, staging: 'nowhere://x'}\n")
    done = cli("ls")
    assert done.returncode == 1
    assert "target broken:" in done.stderr and "Traceback" not in done.stderr


def test_the_help_names_commands_and_exit_codes(cli: Cli) -> None:
    shown = cli("--help").stdout
    for word in ("new", "plan", "run", "ls", "show", "validate", "delete", "reap", "Exit codes", "130"):
        assert word in shown
    assert cli("--version").stdout.startswith("mayfly ")


# ---------------------------------------------------------------- the terminal


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_line_stays_below_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    screen = Screen()
    terminal = Terminal(out=screen, live=screen)
    terminal.progress("one " * 30)
    terminal.line("printed")
    terminal.progress("")
    first, second = screen.getvalue().split("\r\x1b[K", 1)
    assert len(first) == 39
    assert second.startswith("printed\none")
    assert screen.getvalue().endswith("\r\x1b[K")


def test_elsewhere_progress_is_rare() -> None:
    out = io.StringIO()
    terminal = Terminal(out=out, live=out)
    for number in range(100):
        terminal.progress(f"step {number}")
    assert out.getvalue() == "step 0\n"


def test_tables_and_ages() -> None:
    assert table([["a", "bb"], ["ccc", ""]], head=["X", "Y"]) == "X    Y\na    bb\nccc"
    assert [age(seconds) for seconds in (-1, 0, 119, 120, 7199, 7200, 172799, 172800)] == [
        "0 s", "0 s", "119 s", "2 min", "120 min", "2 h", "48 h", "2 d",
    ]  # fmt: skip
