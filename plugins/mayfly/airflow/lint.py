"""Reads a folder's DAG files as Airflow does, and says what is wrong: `python -m mayfly.airflow.lint FOLDER`.

Each file is read by Airflow's own DagBag in a process of its own: whatever a file does or loads, and if it hangs or
ends its process, the next one is not touched. Airflow itself is imported once; the processes are forks.

Nothing of the user's Airflow is touched: home and database are temporary and empty. Settings of an existing
airflow.cfg hold, since DAG files may ask for them.
"""

from __future__ import annotations

import argparse
import ast
import functools
import json
import os
import pickle
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mayfly.daglint.facts import DagFile
from mayfly.daglint.files import findings
from mayfly.errors import InputError

if TYPE_CHECKING:
    from mayfly.airflow.parsewatch import Watch

PATIENCE_S = 120.0
"""For one file. Airflow's own limit is 30 s; this is for files that Airflow cannot interrupt."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when nothing is refused, 2 when something is; findings go to `--json` if given, else to the screen."""
    parser = argparse.ArgumentParser(prog="mayfly.airflow.lint", description="Checks a folder of DAG files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args(arguments)
    files = read_folder(options.folder.absolute())
    found = [finding for file in files for finding in findings(file)]
    if options.json:
        dags = sum(len(file.dags) for file in files)
        clusters = sum(len(dag.clusters) for file in files for dag in file.dags)
        said = {"files": len(files), "dags": dags, "clusters": clusters, "findings": [asdict(one) for one in found]}
        options.json.write_text(json.dumps(said), encoding="utf-8")
    else:
        for one in found:
            print(one)
    return 2 if any(one.severity == "error" for one in found) else 0


def read_folder(folder: Path) -> list[DagFile]:
    """All files of `folder` that Airflow takes for DAG files (.airflowignore holds), by name."""
    with tempfile.TemporaryDirectory(prefix="mayfly-lint-") as name:
        home = Path(name).resolve()
        _settings(folder, home=home)
        from airflow.utils.file import list_py_file_paths

        # Once, not in every fork.
        import mayfly.airflow.describe
        import mayfly.airflow.parsewatch  # noqa: F401

        _dag_bag()
        return [_read_apart(path, home=home) for path in sorted(list_py_file_paths(str(folder)))]


def _settings(folder: Path, *, home: Path) -> None:
    """Before Airflow is imported, which reads them once."""
    base = folder if folder.is_dir() else folder.parent
    users = Path(os.environ.get("AIRFLOW_HOME") or Path.home() / "airflow")
    plugins = next((path for path in (base.parent / "plugins", users / "plugins") if path.is_dir()), home / "plugins")
    config = Path(os.environ.get("AIRFLOW_CONFIG") or users / "airflow.cfg")
    if config.is_file():
        os.environ["AIRFLOW_CONFIG"] = str(config)
    os.environ.setdefault("AIRFLOW__CORE__PLUGINS_FOLDER", str(plugins))
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(base),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "50",
    }
    sys.path += [path for path in (str(base), os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"]) if path not in sys.path]


def _dag_bag() -> Any:
    """Airflow's class of that name, which moved between 3.1 and 3.3."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag
    return DagBag


# ---------------------------------------------------------------- one file, one process


def _read_apart(path: str, *, home: Path) -> DagFile:
    result = home / "result.pickle"
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()  # so that everything it starts can be ended with it
            _silence()
            result.write_bytes(pickle.dumps(_read(path, home=home)))
            code = 0
        finally:
            os._exit(code)  # whatever the file has left to do at exit
    status, deadline = None, time.monotonic() + PATIENCE_S
    while status is None and time.monotonic() < deadline:
        done, found = os.waitpid(pid, os.WNOHANG)
        status = found if done else None
        time.sleep(0 if done else 0.02)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    if status is None:
        os.waitpid(pid, 0)
        return DagFile(
            file=_shown(path), error=f"not read within {PATIENCE_S:.0f} s, although Airflow tried to stop it"
        )
    if not result.exists():
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return DagFile(file=_shown(path), error=f"reading it ended the whole process ({how})")
    file: DagFile = pickle.loads(result.read_bytes())
    result.unlink()
    return file


def _silence() -> None:
    """DAG files print, and so does Airflow."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)


def _read(path: str, *, home: Path) -> DagFile:
    from mayfly.airflow.describe import describe
    from mayfly.airflow.parsewatch import Watch

    source = _source(path)
    sys.dont_write_bytecode = True
    made = _Made(path)
    watch = Watch(path, own=[str(home)])
    failed = _watch_calls(watch)
    began = time.process_time()
    error, dags = "", []
    try:
        bag = _dag_bag()(dag_folder=path, safe_mode=False)
        error, dags = "\n".join(bag.import_errors.values()), list(bag.dags.values())
    except BaseException as stopped:  # sys.exit() in a DAG file stops Airflow's own reading, too
        error = f"{type(stopped).__name__}: {stopped}"
    cpu = time.process_time() - began
    if "must be followed with trigger rule ALL_SUCCESS" in error:
        dags = made.dags  # Airflow threw them away, and its message names no task
    lines = re.findall(rf'File "{re.escape(path)}", line (\d+)', error)
    return DagFile(
        file=_shown(path),
        dags=tuple(describe(dag, line=functools.partial(made.line, dag)) for dag in dags),
        # That something is not defined here says nothing of the place where the file is deployed.
        error="" if any(text and text in error for text in failed) else error,
        error_line=int(lines[-1]) if lines else None,
        imports=tuple(watch.imports.values()),
        work=tuple(watch.work.values()),
        cpu_s=cpu,
        uses_mayfly="mayfly" in source,
        lines=dict(_keywords(source)),
    )


class _Made:
    """Remembers, for each DAG and each task, the line of the file that makes it; Airflow does not."""

    def __init__(self, path: str) -> None:
        from airflow.sdk import DAG

        self.path = path
        self.dags: list[Any] = []
        self._lines: dict[tuple[int, str], int] = {}
        create, add = DAG.__init__, DAG.add_task

        def __init__(dag: Any, *args: Any, **kwargs: Any) -> None:
            self._note(dag, "")
            self.dags.append(dag)
            create(dag, *args, **kwargs)

        def add_task(dag: Any, task: Any) -> None:
            self._note(dag, task.task_id)
            add(dag, task)

        DAG.__init__, DAG.add_task = __init__, add_task  # type: ignore[method-assign]

    def _note(self, dag: Any, task_id: str) -> None:
        frame = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename != self.path:
            frame = frame.f_back  # type: ignore[assignment]
        if frame is not None:
            self._lines.setdefault((id(dag), task_id), frame.f_lineno)

    def line(self, dag: Any, task_id: str) -> int | None:
        return self._lines.get((id(dag), task_id))


def _watch_calls(watch: Watch) -> list[str]:
    """Notes what makes no audit event: sleeping (before Python 3.13), and each question for a variable or connection.
    The result will hold the errors of questions that were not answered."""
    from airflow.sdk.execution_time import context

    sleep = time.sleep

    def slept(seconds: float) -> None:
        watch.note(f"sleeps {seconds:g} s")
        sleep(seconds)

    time.sleep = slept
    failed: list[str] = []
    for function, what in (("_get_variable", "variable"), ("_get_connection", "connection")):
        ask = getattr(context, function, None)
        if ask is None:
            continue

        def asked(key: str, *args: Any, ask: Any = ask, what: str = what, **kwargs: Any) -> Any:
            watch.note(f"asks Airflow for the {what} {key!r}")
            try:
                return ask(key, *args, **kwargs)
            except Exception as error:
                failed.append(str(error))
                raise

        setattr(context, function, asked)
    return failed


# ---------------------------------------------------------------- the text


def _source(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # a zip file, or Airflow will say what is wrong


def _keywords(source: str) -> Iterator[tuple[str, int]]:
    """(name, line) of places that set one of these."""
    wanted = {"dagrun_timeout", "execution_timeout"}
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        name = getattr(node, "arg", None) or getattr(node, "attr", None) or getattr(node, "value", None)
        if isinstance(name, str) and name in wanted and isinstance(node, (ast.keyword, ast.Attribute, ast.Constant)):
            yield name, node.lineno


def _shown(path: str) -> str:
    """As a person in the current folder would write it."""
    try:
        return Path(path).relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except InputError as error:
        raise SystemExit(f"mayfly: {error}") from None
