"""`airflow dags test` without Airflow's own chatter: `python -m mayfly.airflow.dagstest flights [more arguments]`.

Runs exactly that command with the settings of the local Airflow (`mayfly.airflow.standalone`), shows what Mayfly's
tasks say, and keeps everything else in a file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mayfly.airflow.standalone import Stack
from mayfly.project.loading import Project

_OURS = "airflow.task.mayfly | "
_FAILURES = 30


def main(arguments: list[str] | None = None) -> int:
    """The exit code of `airflow dags test`: 0 only when the run succeeded and its deletion is proven."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        raise SystemExit("usage: python -m mayfly.airflow.dagstest JOB [arguments of `airflow dags test`]")
    project = Project.find().home
    home = Path(os.environ.get("AIRFLOW_HOME") or project / ".airflow")
    quiet = {
        "AIRFLOW__LOGGING__LOG_FORMAT": "%(name)s | %(message)s",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "PYTHONWARNINGS": "ignore",
        "PYTHONUNBUFFERED": "1",
    }
    stack = Stack(home=home, project=project, port=0, settings=quiet)
    stack.migrate()
    path = home / "dags-test.log"
    with path.open("w") as log:
        command = [sys.executable, "-m", "airflow", "dags", "test", *arguments]
        with subprocess.Popen(
            command, env=stack.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        ) as process:  # fmt: skip
            assert process.stdout is not None
            tail: list[str] = []
            try:
                for line in process.stdout:
                    log.write(line)
                    if line.startswith(_OURS):
                        print(line.removeprefix(_OURS), end="", flush=True)
                    else:
                        tail = [*tail[1 - _FAILURES :], line]
            except KeyboardInterrupt:  # the child has it too: its teardowns run
                log.writelines(process.stdout)
            code = process.wait()
    if code:
        print("".join(tail), end="", file=sys.stderr)
        print(f"the run failed; all of its log: {path}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
