"""Two targets may keep their runs in one folder; a run is one run, whichever target leads to it."""

from __future__ import annotations

from tests.cli.conftest import TARGETS, Cli


def test_a_run_is_found_once(cli: Cli) -> None:
    cli.add_job("short", "print('here')")
    other = '  other: {backend: "mayfly.backends.local:LocalBackend"}\n'
    (cli.home / "config").mkdir(exist_ok=True)
    (cli.home / "config" / "targets.yaml").write_text(TARGETS + other)
    assert cli("run", "short").returncode == 0
    shown = cli("show", "mayfly-short")
    assert shown.returncode == 0, shown.stderr
    deleted = cli("delete", "mayfly-short")
    assert deleted.returncode == 0, deleted.stderr
