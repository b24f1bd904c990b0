"""The I/O edge of the specs: finds the project, reads its files, and says in the user's words what is wrong.

A project is a folder with `jobs/` and `config/`. One broken job never keeps another from loading.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mayfly.contract import FrozenTarget
from mayfly.errors import InputError, SpecError
from mayfly.names import fold
from mayfly.project import explain, yamlfile
from mayfly.spec.job import FROM_FILE, JobFile, JobSpec, TargetsFile, TargetSpec, check_job_name
from mayfly.spec.profiles import Profile, ProfilesFile, merged

JOB_FILE = "job.yaml"
TARGETS_FILE = "config/targets.yaml"
PROFILES_FILE = "config/profiles.yaml"


@dataclass(frozen=True)
class Project:
    """A folder with `jobs/` and `config/`."""

    home: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """MAYFLY_HOME; else the nearest folder that has `jobs/` and `config/`, from `start` (by default the current
        folder, then Airflow's DAG folder) upwards. InputError when there is none."""
        home = os.environ.get("MAYFLY_HOME")
        if home:
            folder = Path(home).expanduser().absolute()
            if not (folder / "jobs").is_dir():
                raise InputError(
                    f"MAYFLY_HOME is {home!r}, which has no folder jobs/; let it name the project's folder"
                )
            return cls(folder)
        starts = [start] if start is not None else [Path.cwd(), *_dag_folder()]
        for begin in starts:
            for folder in (begin.absolute(), *begin.absolute().parents):
                if (folder / "jobs").is_dir() and (folder / "config").is_dir():
                    return cls(folder)
        raise InputError(
            f"no project: neither {starts[0]} nor a folder above it has jobs/ and config/; "
            "go there, or let MAYFLY_HOME name it"
        )

    # -- jobs

    def job_names(self) -> list[str]:
        """Names of all folders of `jobs/` that hold a job file, sorted; also of those that are wrong."""
        folder = self.home / "jobs"
        try:
            entries = sorted(os.listdir(folder))
        except OSError as error:
            raise InputError(f"cannot list {folder}: {error.strerror}") from error
        return [name for name in entries if not name.startswith((".", "_")) and _has_job_file(folder / name)]

    def jobs(self) -> tuple[dict[str, JobSpec], list[SpecError]]:
        """All jobs that are right, by name, and one error for each that is not."""
        good: dict[str, JobSpec] = {}
        errors: list[SpecError] = []
        try:
            targets: Mapping[str, TargetSpec] | None = self.targets()
        except SpecError as error:
            errors.append(error)
            targets = None  # jobs are shown nevertheless; plan will say the same
        try:
            profiles: Mapping[str, Mapping[str, Any]] | None = self._profiles()
        except SpecError as error:
            errors.append(error)
            profiles = None
        names = self.job_names()
        twins = _twins(names)
        for name in names:
            try:
                good[name] = self._read(name, twins=twins, targets=targets, profiles=profiles)
            except SpecError as error:
                errors.append(error)
            except OSError as error:
                errors.append(SpecError(f"cannot be read: {error}", file=f"jobs/{name}/{JOB_FILE}"))
        return good, errors

    def job(self, name: str) -> JobSpec:
        """One job. SpecError when it is wrong or unknown (naming the nearest)."""
        names = self.job_names()
        if name not in names:
            raise SpecError(f"no job {name!r}; {explain.choices(name, names)}", file="jobs")
        return self._read(name, twins=_twins(names), targets=self.targets(), profiles=self._profiles())

    def _read(
        self,
        name: str,
        *,
        twins: Mapping[str, str],
        targets: Mapping[str, TargetSpec] | None,
        profiles: Mapping[str, Mapping[str, Any]] | None,
    ) -> JobSpec:
        shown = f"jobs/{name}/{JOB_FILE}"
        folder = self.home / "jobs" / name
        if not os.path.lexists(folder / JOB_FILE) and os.path.lexists(folder / "job.yml"):
            raise SpecError(f"rename it to {JOB_FILE}", file=f"jobs/{name}/job.yml")
        try:
            check_job_name(name)
        except ValueError as error:
            raise SpecError(str(error), file=shown) from error
        twin = twins[fold(name)]
        if twin != name:
            raise SpecError(
                f"job {name!r} and job {twin!r} would have the same cluster names ({fold(name)!r}: - and _ are one "
                "there); rename one of the folders",
                file=shown,
            )
        path = folder / JOB_FILE
        text, data = yamlfile.read(path, shown=shown)
        for key in sorted(JobSpec.model_fields.keys() - JobFile.model_fields.keys()):
            if key in data:
                why = "remove it; the folder gives the job its name" if key in ("name", "folder") else "unknown key"
                raise SpecError(why, file=shown, line=yamlfile.line_of(text, (key,)), key=key)
        whole, more = _with_profile(data, profiles, text=text, shown=shown)
        try:
            job = JobSpec.model_validate(
                {**whole, "name": name, "folder": folder} | more, context=FROM_FILE, by_alias=True, by_name=False
            )
        except ValidationError as error:
            found = explain.spec_error(error, model=JobFile, data=data, text=text, shown=shown)
            if more["from_profile"]:
                found = SpecError(
                    f"{found.message}\n(its profile gave {', '.join(more['from_profile'])})",
                    file=shown,
                    line=found.line,
                    key=found.key,
                )
            raise found from error
        problem = script_problem(folder, job.script)
        if problem:
            raise SpecError(problem, file=shown, line=yamlfile.line_of(text, ("script",)), key="script")
        if targets is not None:
            _check_targets(job, targets, text=text, shown=shown)
        return job

    # -- profiles

    def profiles(self) -> dict[str, Profile]:
        """All profiles, by name; without a profiles.yaml there is none. SpecError when the file is wrong."""
        return {
            name: Profile.model_validate(entry, context=FROM_FILE, by_alias=True, by_name=False)
            for name, entry in self._profiles().items()
        }

    def _profiles(self) -> dict[str, Mapping[str, Any]]:
        """As they stand in the file, which is right."""
        path = self.home / PROFILES_FILE
        if not path.exists():
            return {}
        text, data = yamlfile.read(path, shown=PROFILES_FILE)
        try:
            ProfilesFile.model_validate(data, context=FROM_FILE, by_alias=True, by_name=False)
        except ValidationError as error:
            raise explain.spec_error(error, model=ProfilesFile, data=data, text=text, shown=PROFILES_FILE) from error
        return dict(data["profiles"])

    # -- targets

    def targets(self) -> dict[str, TargetSpec]:
        """All targets, by name; without a targets.yaml there is `local`. SpecError when the file is wrong."""
        path = self.home / TARGETS_FILE
        if not path.exists():
            return {"local": TargetSpec(name="local", backend="local")}
        text, data = yamlfile.read(path, shown=TARGETS_FILE)
        try:
            parsed = TargetsFile.model_validate(data, context=FROM_FILE, by_alias=True, by_name=False)
        except ValidationError as error:
            raise explain.spec_error(error, model=TargetsFile, data=data, text=text, shown=TARGETS_FILE) from error
        return {name: TargetSpec(name=name, **_fields(entry)) for name, entry in parsed.targets.items()}

    def target(self, name: str) -> TargetSpec:
        """One target. SpecError when it is unknown (naming the nearest) or the file is wrong."""
        targets = self.targets()
        if name not in targets:
            raise SpecError(f"unknown target {name!r}; {explain.choices(name, targets)}", file=TARGETS_FILE)
        return targets[name]

    def frozen_target(self, name: str) -> FrozenTarget:
        """`target`, frozen for a run."""
        return self.target(name).freeze(self.home)


def script_problem(folder: Path, script: str) -> str:
    """Why `script` cannot be run from a job's folder, in words; empty when it can. Links count by what they name."""
    path = folder / script
    if not path.is_file():
        found = sorted(p.relative_to(folder).as_posix() for p in folder.glob("*.py"))
        return f"no script {script!r} in {folder.name}/; {explain.choices(script, found)}"
    if not path.resolve().is_relative_to(folder.resolve()):
        return f"script {script!r} is a link to {path.resolve()}, outside the job's folder; copy the file into it"
    return ""


def _has_job_file(folder: Path) -> bool:
    try:
        return any(name in (JOB_FILE, "job.yml") for name in os.listdir(folder))
    except NotADirectoryError:
        return False
    except OSError:
        return True  # nobody knows; reading it will say why


def _twins(names: Iterable[str]) -> dict[str, str]:
    """For each name as it appears in clusters the job that has it: the first of those with a right name."""
    twins: dict[str, str] = {}
    for name in names:
        try:
            twins.setdefault(fold(check_job_name(name)), name)
        except ValueError:
            continue
    return twins


def _with_profile(
    data: Mapping[str, Any], profiles: Mapping[str, Mapping[str, Any]] | None, *, text: str, shown: str
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """A job file's content with its profile below it, and what the `JobSpec` keeps of that. SpecError when there is no
    such profile. `profiles` None = their file is wrong: then the job is shown, and its plan says so."""
    own: dict[str, Any] = {"from_profile": None, "profile_problem": ""}
    cluster = data.get("cluster")
    name = cluster.get("profile") if isinstance(cluster, dict) else None
    if not isinstance(name, str) or not name:
        return data, own
    if profiles is None:
        return data, own | {"profile_problem": f"{PROFILES_FILE} is wrong, so profile {name!r} cannot be read; fix it"}
    if name not in profiles:
        raise SpecError(
            f"unknown profile {name!r}; {explain.choices(name, profiles)} (in {PROFILES_FILE})",
            file=shown,
            line=yamlfile.line_of(text, ("cluster", "profile")),
            key="cluster.profile",
        )
    whole, taken = merged(data, profiles[name])
    return whole, own | {"from_profile": taken}


def _check_targets(job: JobSpec, targets: Mapping[str, TargetSpec], *, text: str, shown: str) -> None:
    named = [(("target",), job.target), *((("targets", index), name) for index, name in enumerate(job.targets))]
    for place, name in named:
        line = yamlfile.line_of
        key = ".".join(map(str, place))
        if name not in targets:
            raise SpecError(
                f"unknown target {name!r}; {explain.choices(name, targets)} (in {TARGETS_FILE})",
                file=shown,
                line=line(text, place),
                key=key,
            )
        try:
            check_job_name(job.name, prefix=targets[name].prefix)
        except ValueError as error:
            raise SpecError(f"on target {name!r}: {error}", file=shown, line=line(text, place), key=key) from error


def _fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.model_fields_set}


def _dag_folder() -> list[Path]:
    dags = os.environ.get("AIRFLOW__CORE__DAGS_FOLDER")
    if dags:
        return [Path(dags)]
    airflow = os.environ.get("AIRFLOW_HOME")
    return [Path(airflow) / "dags"] if airflow else []
