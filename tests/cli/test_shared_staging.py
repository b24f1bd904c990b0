"""Two targets may keep their runs in one folder; a run is one run, whichever target leads to it."""

from __future__ import annotations

import json

from tests.cli.conftest import TARGETS, WAITS, Cli
from tests.processes import of_cluster

OTHER = '  other: {backend: "mayfly.backends.local:LocalBackend"}\n'


def test_a_run_is_found_once(cli: Cli) -> None:
    cli.add_job("short", "print('here')")
    (cli.home / "config").mkdir(exist_ok=True)
    (cli.home / "config" / "targets.yaml").write_text(TARGETS + OTHER)
    assert cli("run", "short").returncode == 0
    listed = cli("ls").stdout.splitlines()
    assert [line.split()[2] for line in listed[1:]] == ["local"], listed
    assert len(cli("ls", "--json").stdout.splitlines()) == 1
    assert cli("ls", "--target", "other").stdout.strip() == "no runs yet"
    shown = cli("show", "mayfly-short")
    assert shown.returncode == 0, shown.stderr
    deleted = cli("delete", "mayfly-short")
    assert deleted.returncode == 0, deleted.stderr


def test_an_expired_run_is_reaped_once(cli: Cli) -> None:
    cli.add_job("short", "print('here')")
    (cli.home / "config").mkdir(exist_ok=True)
    (cli.home / "config" / "targets.yaml").write_text(TARGETS + OTHER)
    assert cli("run", "short").returncode == 0
    folder = cli.home / ".mayfly/staging/runs" / cli.only_run().name
    for name in ("receipt.json", "closing.json"):
        (folder / name).unlink()
    path = folder / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"expires_at": "2026-01-01T00:00:00Z"}))
    only_looks = cli("reap", "--dry-run")
    assert only_looks.returncode == 3
    assert len(only_looks.stdout.splitlines()) == 1, only_looks.stdout
    assert "(local)" in only_looks.stdout


def test_two_places_share_a_folder(cli: Cli) -> None:
    """A cluster is looked for, and ended, where its own plan says."""
    second = f"  second: {{backend: local, options: {{state_dir: '{cli.state}-2'}}}}\n"
    (cli.home / "config" / "targets.yaml").write_text(TARGETS + second)
    cli.add_job("waits", WAITS, "targets: [local, second]\n")
    process = cli.start("run", "waits", "--target", "second")
    cli.wait_for("working")
    process.kill()
    process.wait()
    name = cli.only_run().name
    rows = [line.split()[:5] for line in cli("ls").stdout.splitlines()[1:]]
    assert rows == [[name, "waits", "second", "open", "running"]]
    assert cli("ls", "--target", "local").stdout.strip() == "no runs yet"
    path = cli.home / ".mayfly/staging/runs" / name / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"expires_at": "2026-01-01T00:00:00Z"}))
    done = cli("reap")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name} (second): ended" in done.stdout
    assert cli.receipt().by.startswith("mayfly reap")
    assert of_cluster(name) == []
