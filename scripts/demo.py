"""`make demo`: the job `flights` by `airflow dags test`, on this machine, and what came of it in ten lines.

Airflow's own log goes to .airflow/demo.log; the terminal shows what Mayfly says. The exit code is Airflow's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from mayfly.airflow.standalone import Stack
from mayfly.errors import MayflyError
from mayfly.inventory import find_run
from mayfly.project import Project
from mayfly.reporting import text_report
from mayfly.terminal import Terminal

ROOT = Path(__file__).resolve().parent.parent
JOB = "flights"
OURS = re.compile(r"^\S+ \[\w+\s*\] (?P<text>.*?)\s*\[airflow\.task\.mayfly\](?: \w+=.*)?$")
TASK = re.compile(r"\[DAG TEST\] starting task_id=(?P<task>[\w.]+)")
PROGRESS = re.compile(r"^\d+ s \| ")
RUN = re.compile(r"^run directory \S*/(?P<name>[a-z0-9-]+)$")


def main() -> int:
    began = time.monotonic()
    terminal = Terminal()
    home = Path(os.environ.get("AIRFLOW_HOME") or ROOT / ".airflow")
    stack = Stack(home=home, project=ROOT, port=0)  # for its settings; nothing listens in `dags test`
    terminal.line("Airflow: preparing its database in .airflow")
    stack.migrate()
    log = home / "demo.log"
    terminal.line(f"Airflow: dags test {JOB}   (its own log: {log})")
    code, run_name, reported = follow(stack, log, terminal)
    if code:
        terminal.warn(f"the end of {log}:\n" + "\n".join(log.read_text().splitlines()[-25:]))
    if not run_name:
        return code or 1
    if not reported:
        terminal.line(summary(run_name))
    terminal.line(f"exit code {code}, {time.monotonic() - began:.0f} s in all; again: make demo; with the UI: make up")
    return code


def follow(stack: Stack, log: Path, terminal: Terminal) -> tuple[int, str, bool]:
    """Airflow's exit code, the name of the run, and whether its report was shown. Ctrl-C reaches Airflow, too, which
    tears down."""
    run_name, reported = "", False
    command = [sys.executable, "-m", "airflow", "dags", "test", JOB]
    env = stack.env | {"PYTHONUNBUFFERED": "1"}
    terminal.progress("Airflow is starting ...")
    pipes: dict[str, int] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with log.open("w") as copy, subprocess.Popen(command, env=env, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout is not None
        while True:
            try:
                for line in process.stdout:
                    copy.write(line)
                    text = show(line.rstrip("\n"), terminal)
                    if named := RUN.match(text):
                        run_name = named["name"]
                    reported = reported or text.startswith("  report  ")
                break
            except KeyboardInterrupt:
                terminal.warn("interrupted: Airflow ends the job and deletes the cluster; please wait")
    terminal.progress("")
    return process.returncode, run_name, reported


def show(line: str, terminal: Terminal) -> str:
    """Print what is for people; returns Mayfly's own words, if there are any in this line."""
    if task := TASK.search(line):
        terminal.progress("")
        terminal.line(f"--- {task['task']}")
    ours = OURS.match(line)
    if ours is None:
        return ""
    if PROGRESS.match(ours["text"]):
        terminal.progress(ours["text"])
    else:
        terminal.line(f"    {ours['text']}".rstrip())
    return ours["text"]


def summary(run_name: str) -> str:
    """The run in a few lines, for when the report task could not say them."""
    try:
        return text_report(find_run(Project(ROOT).frozen_target("local"), run_name))
    except MayflyError as error:
        return f"what became of {run_name} is not known: {error}"


if __name__ == "__main__":
    sys.exit(main())
