"""`mayfly validate`: every check of all jobs and targets that needs no cluster.

Also keeps the JSON schemas of config/schemas/, from which editors complete and check job.yaml and targets.yaml.
"""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import sys
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from mayfly.errors import SpecError
from mayfly.project import checks, yamlfile
from mayfly.project.checks import Finding
from mayfly.project.loading import JOB_FILE, PROFILES_FILE, TARGETS_FILE, Project
from mayfly.spec.job import JobSpec
from mayfly.spec.schemas import schemas

SCHEMA_FOLDER = "config/schemas"
MAX_FILES = 2000
MAX_FOLDER = 50 * 10**6
MAX_SOURCE = 2 * 10**6


def validate_project(project: Project, names: Sequence[str] = ()) -> tuple[list[str], bool]:
    """Lines for people, and whether there is no error. `names` = only these jobs (SpecError when there is no such)."""
    findings = check_project(project, names=names)
    errors = sum(finding.severity == "error" for finding in findings)
    what = f"{len(names)} job(s)" if names else f"{len(project.job_names())} jobs, config"
    said = f"{errors} errors, {len(findings) - errors} warnings" if findings else "all good"
    return [*map(str, findings), f"{what}: {said}"], not errors


def check_project(project: Project, *, names: Sequence[str] = ()) -> list[Finding]:
    """All findings, in order of file and line; only of the jobs in `names` if there are any."""
    findings: list[Finding] = []
    if names:
        jobs = {}
        for name in names:
            try:
                jobs[name] = project.job(name)
            except SpecError as error:
                findings.append(_finding(error))
    else:
        jobs, errors = project.jobs()
        findings += [
            *map(_finding, errors),
            *_folders(project),
            *_schemas(project),
            *_targets(project),
            *_profiles(project),
        ]
    for job in jobs.values():
        findings += check_job(job, home=project.home)
    return sorted(findings, key=lambda finding: (finding.file, finding.line or 0))


def check_job(job: JobSpec, *, home: Path) -> list[Finding]:
    """Everything about one job whose job.yaml is right."""
    shown = f"jobs/{job.name}"
    findings = [
        *_shadowing(job, shown=shown),
        *_folder(job, shown=shown),
        *_yaml(job, file=f"{shown}/{JOB_FILE}"),
    ]
    for path in sorted(job.folder.rglob("*.py"))[:MAX_FILES]:
        file = f"{shown}/{path.relative_to(job.folder).as_posix()}"
        try:
            source = path.read_bytes()[:MAX_SOURCE].decode()
        except (OSError, UnicodeDecodeError) as error:
            findings.append(Finding(severity="error", file=file, message=f"cannot be read as UTF-8: {error}"))
            continue
        tree, problem = checks.parse_source(source, file=file)
        if problem is not None:
            findings.append(problem)
        if tree is not None:
            elsewhere = partial(_elsewhere, folder=job.folder, home=home)
            findings += checks.local_paths(tree, file=file, exists_elsewhere=elsewhere)
    return findings


def _yaml(job: JobSpec, *, file: str) -> Iterator[Finding]:
    text = (job.folder / JOB_FILE).read_text(encoding="utf-8")

    def finding(severity: checks.Severity, place: tuple[str | int, ...], message: str) -> Finding:
        key = ".".join(map(str, place))
        return Finding(severity=severity, file=file, line=yamlfile.line_of(text, place), key=key, message=message)

    known: dict[str, Collection[str]] = {
        "params": [*job.params, "target"],
        "inputs": job.inputs,
        "outputs": job.outputs,
    }
    for index, severity, message in checks.templates(job.args, known=known):
        yield finding(severity, ("args", index), message)
    for key, message in checks.dask_settings(job.cluster.dask, known=_dask_defaults()):
        yield finding("warning", ("cluster", "dask", *key.split(".")), message)
    for key, message in checks.thresholds(job.cluster.dask):
        yield finding("warning", ("cluster", "dask", *key.split(".")), message)
    for name, message in checks.secrets(job.env):
        yield finding("warning", ("env", name), message)
    if isinstance(job.schedule, str) and not job.schedule.startswith("@") and not _fires(job.schedule):
        yield finding("error", ("schedule",), f"{job.schedule!r} never happens; look at day and month")


# ---------------------------------------------------------------- the job's folder


def _folder(job: JobSpec, *, shown: str) -> Iterator[Finding]:
    count = size = 0
    root = job.folder.resolve()
    for parent, folders, names in os.walk(job.folder):
        for name in folders + names:
            path = Path(parent) / name
            if path.is_symlink() and not (real := path.resolve()).is_relative_to(root):
                yield Finding(
                    severity="warning",
                    file=f"{shown}/{path.relative_to(job.folder).as_posix()}",
                    message=f"is a link to the folder {real}, which does not travel with the job; copy into the job's "
                    "folder what it needs"
                    if name in folders
                    else f"is a link to {real}, whose content travels with the job; copy it or remove it",
                )
            if path.is_file():
                count, size = count + 1, size + path.stat().st_size
    if count > MAX_FILES or size > MAX_FOLDER:
        yield Finding(
            severity="warning",
            file=shown,
            message=f"holds {count} files, {size / 1e6:.0f} MB, and all of it travels with the job; keep data "
            "elsewhere and name it under inputs",
        )


def _folders(project: Project) -> Iterator[Finding]:
    jobs = set(project.job_names())
    for folder in sorted((project.home / "jobs").iterdir()):
        if folder.is_dir() and folder.name not in jobs and folder.name[0] not in "._" and any(folder.glob("*.py")):
            yield Finding(
                severity="warning",
                file=f"jobs/{folder.name}",
                message=f"holds Python files but no {JOB_FILE}, so it is no job; add one (`mayfly new` shows how)",
            )


def _elsewhere(text: str, *, folder: Path, home: Path) -> str:
    """The existing path that `text` means on this machine, if it is outside the job's folder."""
    plain = os.path.expanduser(text.removeprefix("file://"))
    # The script runs in its folder; on the author's machine it may have been started from the project's.
    for base in (folder, home):
        path = Path(os.path.normpath(base / plain))
        try:
            if path.exists():
                return "" if path.is_relative_to(folder) else str(path)
        except (OSError, ValueError):
            return ""
    return ""


def _shadowing(job: JobSpec, *, shown: str) -> Iterator[Finding]:
    """Of both folders that Python looks in first: the job's, which is on everybody's path, and the script's own."""
    own = Path(job.script).parent
    yield from checks.shadowing(_modules(job.folder, shown=shown), owner=module_owner)
    if own != Path():
        yield from checks.shadowing(_modules(job.folder / own, shown=f"{shown}/{own.as_posix()}"), owner=module_owner)


def _modules(folder: Path, *, shown: str) -> dict[str, str]:
    """Name and file of each module and package that this folder brings."""
    modules = {path.stem: f"{shown}/{path.name}" for path in folder.glob("*.py")}
    packages = {path.parent.name: f"{shown}/{path.parent.name}" for path in folder.glob("*/__init__.py")}
    return dict(sorted({**modules, **packages}.items()))


@cache
def module_owner(module: str) -> str:
    """Whose module this is: the standard library's, an installed package's, Mayfly's, or nobody's ("")."""
    if module in sys.stdlib_module_names:
        return "the standard library"
    if module == "mayfly":
        return "Mayfly"
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    spec = importlib.machinery.PathFinder.find_spec(module, sorted(installed))
    # without a loader it is a mere folder, which hides nothing and is not hidden
    return "an installed package" if spec is not None and spec.origin is not None else ""


@cache
def _dask_defaults() -> tuple[str, ...]:
    """Dotted names of all settings that Dask has defaults for (read, not imported); empty where there is no Dask."""
    keys: list[str] = []
    for package, name in (("dask", "dask.yaml"), ("distributed", "distributed.yaml")):
        spec = importlib.machinery.PathFinder.find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            path = Path(folder) / name
            if path.is_file():
                import yaml

                keys += checks.flat(yaml.load(path.read_bytes(), Loader=yaml.SafeLoader))
    return tuple(keys)


def _fires(cron: str) -> bool:
    """Whether there is a next time; True as well where the library that Airflow asks is not installed."""
    try:
        from croniter import CroniterBadDateError, croniter  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return True
    from datetime import UTC, datetime

    try:
        croniter(cron, datetime(2024, 1, 1, tzinfo=UTC)).get_next(datetime)
    except CroniterBadDateError:
        return False
    return True


# ---------------------------------------------------------------- targets


def _targets(project: Project) -> Iterator[Finding]:
    try:
        targets = [target.freeze(project.home) for target in project.targets().values()]
    except SpecError:
        return  # told by whoever lists the jobs
    path = project.home / TARGETS_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for target in targets:
        for key, message in checks.target(target, runs=lambda python: shutil.which(python) is not None):
            line = yamlfile.line_of(text, ("targets", target.name, *key.split(".")))
            yield Finding(
                severity="warning", file=TARGETS_FILE, line=line, key=f"targets.{target.name}.{key}", message=message
            )


# ---------------------------------------------------------------- profiles


def _profiles(project: Project) -> Iterator[Finding]:
    try:
        profiles = project.profiles()
    except SpecError:
        return  # told by whoever lists the jobs
    path = project.home / PROFILES_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for name, profile in profiles.items():
        found = [
            *checks.dask_settings(profile.dask, known=_dask_defaults()),
            *checks.thresholds(profile.dask),
        ]
        for key, message in found:
            place = ("profiles", name, "dask", *key.split("."))
            line = yamlfile.line_of(text, place)
            yield Finding(severity="warning", file=PROFILES_FILE, line=line, key=".".join(place), message=message)


# ---------------------------------------------------------------- JSON schemas


def write_schemas(home: Path) -> list[Path]:
    """Bring config/schemas/ up to date; the files that were written."""
    written = []
    for path, content in _stale_schemas(home):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def _stale_schemas(home: Path) -> list[tuple[Path, str]]:
    paths = ((home / SCHEMA_FOLDER / name, content) for name, content in schemas().items())
    return [(path, text) for path, text in paths if not path.is_file() or path.read_text(encoding="utf-8") != text]


def _schemas(project: Project) -> Iterator[Finding]:
    for path, _ in _stale_schemas(project.home):
        if path.is_file():
            yield Finding(
                severity="warning",
                file=path.relative_to(project.home).as_posix(),
                message="is of another version, so editors know other rules; run `mayfly validate --write-schemas`",
            )


def _finding(error: SpecError) -> Finding:
    return Finding(severity="error", file=error.file, line=error.line, key=error.key, message=error.message)
