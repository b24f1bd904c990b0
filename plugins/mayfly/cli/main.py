"""The `mayfly` command: plan, run, look at and end runs without Airflow.

Exit codes: 0 all is well; 1 the run failed; 2 the input was wrong and nothing was started; 3 something may still be
running (deletion is not proven, `reap --dry-run` found leaks, or `reap` found what it cannot judge); 128 + n ended by
signal n (130 = Ctrl-C).
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING

from mayfly.errors import InputError, MayflyError, NotProven

# Everything else is imported by the command that needs it: `mayfly --help` answers in 0.1 s.
if TYPE_CHECKING:
    from mayfly.project.loading import Project


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    options = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a job prints must not end the run that prints it
    try:
        return int(options.command(options))
    except MayflyError as error:
        if os.environ.get("MAYFLY_DEBUG"):
            raise
        print(f"mayfly: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 3 if isinstance(error, NotProven) else 1
    except KeyboardInterrupt:
        print("mayfly: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mayfly ls | head`
        return 0
    finally:
        _let_go_of_closed_pipes()


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(
        prog="mayfly",
        description="Runs Python/Dask jobs on clusters that live exactly as long as the job.",
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    main_parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = main_parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = partial(_command, commands)

    sub = command("new", "write jobs/NAME with a job.yaml and a script that run as they are", new)
    sub.add_argument("name", metavar="NAME")

    own = "where to run; by default what job.yaml says"
    for name, what, function in (
        ("plan", "show what a run would make; makes nothing", plan),
        ("run", "run a job: plan, cluster, job, report, and the proof that nothing is left", run),
    ):
        sub = command(name, what, function, target=own)
        sub.add_argument("job", metavar="JOB")
        sub.add_argument(
            "--param", metavar="NAME=VALUE", action="append", default=[], help="a value for a param of the job"
        )
        sub.add_argument("--run-date", metavar="YYYY-MM-DD", type=_day, help="{{ run_date }}; by default today (UTC)")
        if name == "run":
            sub.add_argument("--run-id", metavar="ID", help="take up an earlier run of this id that was cut off")

    every = "only this target; by default all of config/targets.yaml"
    sub = command("ls", "list runs and clusters with their state and age", ls, target=every)
    sub.add_argument(
        "-n", type=int, default=20, metavar="N", help="at most N closed runs (default 20); the others always"
    )
    sub.add_argument("--json", action="store_true", help="one JSON object a line, all runs")

    sub = command("show", "print a run's report and where its page is", show, target=every)
    sub.add_argument("run", metavar="RUN", help="a cluster's name, or the beginning of one")

    sub = command("validate", "check all jobs and targets, or the named jobs", validate)
    sub.add_argument("jobs", metavar="JOB", nargs="*")
    sub.add_argument("--write-schemas", action="store_true", help="bring the files in config/schemas/ up to date, too")
    sub.add_argument(
        "--dags", metavar="FOLDER", nargs="?", const="", help="check the DAG files, too; by default the project's"
    )

    sub = command("delete", "end a run: its job, its cluster; write the receipt", delete, target=every)
    sub.add_argument("runs", metavar="RUN", nargs="+")
    sub.add_argument("--reason", default="", help="kept in the run directory")

    sub = command("reap", "end whatever should have ended and has not; write the receipts", reap, target=every)
    sub.add_argument(
        "--dry-run", action="store_true", help="only say what would be ended; exit code 3 if there is something"
    )

    _env_parser(commands.add_parser("env", help="lock, pack, list and remove job environments", allow_abbrev=False))
    return main_parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    function: object,
    *,
    target: str = "",
) -> argparse.ArgumentParser:
    """Add a command that `function` does; `target` is what its `--target` is for, if it has one."""
    sub = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
    sub.set_defaults(command=function)
    if target:
        sub.add_argument("--target", metavar="NAME", help=target)
    return sub


def _env_parser(main_parser: argparse.ArgumentParser) -> None:
    main_parser.description = (
        "Job environments: a Python interpreter with a job's packages in one archive, for targets whose nodes have "
        "none. docs/environments.md tells all of it."
    )
    commands = main_parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = partial(_command, commands)

    sub = command(
        "build",
        "lock requirements.txt with hashes (requirements.lock, to be committed), and pack it",
        env_build,
        target="where it is to run; by default every target that needs an environment",
    )
    sub.add_argument("job", metavar="JOB", nargs="?", help="for this job; by default for all")
    sub.add_argument("--upgrade", action="store_true", help="lock the newest versions that fit, not the locked ones")
    sub.add_argument("--python", metavar="3.N", type=_python, help="by default the lock's, else the one that runs this")
    sub.add_argument(
        "--interpreter",
        choices=("auto", "uv", "copy"),
        default="auto",
        help="uv: download one made to be moved; copy: this machine's own; auto: the latter where the former fails",
    )
    sub.add_argument("--upload", action="store_true", help="put it into the target's staging store now, too")
    command("ls", "list environments: what they hold, which jobs use them, where they are", env_ls)
    sub = command(
        "rm",
        "remove an archive that was built here",
        env_rm,
        target="remove it from this target's staging store instead",
    )
    sub.add_argument("key", metavar="KEY", help="an environment's key, or the beginning of one")


# ---------------------------------------------------------------- jobs


def new(options: argparse.Namespace) -> int:
    from mayfly.project.scaffold import create_job

    for line in create_job(_project(), options.name):
        print(line)
    return 0


def plan(options: argparse.Namespace) -> int:
    from mayfly.cli.runner import preview
    from mayfly.project.arguments import parse_params, render_args

    project = _project()
    job = project.job(options.job)
    target = project.frozen_target(options.target or job.target)
    params = parse_params(job, options.param)
    planned, lines = preview(job=job, target=target, home=project.home)
    args = render_args(job, plan=planned, params=params, run_date=options.run_date or _today())
    print("\n".join(lines))
    print(f"script    {job.script}", *(repr(arg) for arg in args))
    print("(a preview: nothing was made; the digits of the name change from run to run)")
    return 0


def run(options: argparse.Namespace) -> int:
    from mayfly.cli.identity import new_run_id
    from mayfly.cli.runner import JobRun
    from mayfly.cli.terminal import Terminal

    return JobRun(
        project=_project(),
        job_name=options.job,
        target_name=options.target,
        params=options.param,
        run_date=options.run_date or _today(),
        run_id=options.run_id or new_run_id(),
        terminal=Terminal(),
    )()


def validate(options: argparse.Namespace) -> int:
    from mayfly.project.validate import validate_project, write_schemas

    if options.write_schemas:
        for path in write_schemas(_project().home):
            print(f"{path}: written")
    lines, ok = validate_project(_project(), options.jobs)
    for line in lines:
        print(line)
    if options.dags is not None:
        from mayfly.daglint.checking import validate_dags

        lines, fine = validate_dags(options.dags)
        print(*lines, sep="\n")
        ok = ok and fine
    return 0 if ok else 2


# ---------------------------------------------------------------- runs


def ls(options: argparse.Namespace) -> int:
    from mayfly.cli.oncall import listing

    return listing(_project(), options.target, closed=options.n, as_json=options.json)


def show(options: argparse.Namespace) -> int:
    from mayfly.cli.oncall import show_run

    return show_run(_project(), options.target, options.run)


def delete(options: argparse.Namespace) -> int:
    from mayfly.cli.oncall import delete_runs

    return delete_runs(_project(), options.target, options.runs, reason=options.reason)


def reap(options: argparse.Namespace) -> int:
    from mayfly.cli.oncall import reap_targets

    return reap_targets(_project(), options.target, dry_run=options.dry_run)


# ---------------------------------------------------------------- environments


def env_build(options: argparse.Namespace) -> int:
    from mayfly.cli.environments import build_environments

    return build_environments(
        _project(),
        options.job,
        options.target,
        python=options.python,
        interpreter=options.interpreter,
        upgrade=options.upgrade,
        send=options.upload,
    )


def env_ls(_: argparse.Namespace) -> int:
    from mayfly.cli.environments import list_environments

    return list_environments(_project())


def env_rm(options: argparse.Namespace) -> int:
    from mayfly.cli.environments import remove_environment

    return remove_environment(_project(), options.key, options.target)


# ---------------------------------------------------------------- small things


def _project() -> Project:
    from mayfly.project.loading import Project

    return Project.find()


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day; write it as 2026-01-31") from None


def _python(text: str) -> str:
    if not re.fullmatch(r"3\.\d{1,2}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no Python; write it as 3.11")
    return text


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _let_go_of_closed_pipes() -> None:
    """Python flushes at exit, and would complain there."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"mayfly {version('mayfly')}")
        except PackageNotFoundError:
            print("mayfly (not installed: imported from its folder)")
        parser.exit()


if __name__ == "__main__":
    raise SystemExit(main())
