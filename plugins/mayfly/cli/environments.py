"""`mayfly env build | ls | rm`: what they do and print."""

from __future__ import annotations

import time
from collections.abc import Iterable

from mayfly.cli.terminal import age, table
from mayfly.contract import FrozenTarget
from mayfly.environments.locking import lock
from mayfly.environments.packing import Built, archive_of, build, envs_folder, has_interpreter, read_built
from mayfly.environments.requirements import extras_of, needs_environment, packages_of
from mayfly.environments.sources import Source, read_lock, source_of, sources
from mayfly.environments.staging import in_store, keys_in, look, remove_from, upload
from mayfly.errors import InputError, MayflyError
from mayfly.project.loading import Project
from mayfly.staging.credentials import target_store


def build_environments(
    project: Project,
    job: str | None,
    target_name: str | None,
    *,
    python: str | None = None,
    interpreter: str = "auto",
    upgrade: bool = False,
    send: bool = False,
) -> int:
    """Lock and pack what this job needs, or all jobs, for this target, or all that need an environment."""
    targets = _targets(project, target_name)
    if job is not None:
        project.job(job)  # an unknown name is said in the usual words
    jobs = [job] if job is not None else project.job_names()
    wanted = sources(project.home, jobs) if jobs else {"": source_of(project.home, None)}
    extras = frozenset().union(*(extras_of(target) for target in targets))
    for source in wanted.values():
        _build(project, source, extras=extras, python=python, interpreter=interpreter, upgrade=upgrade)
    if send:
        for target in targets:
            store = target_store(target)
            for name in jobs:
                staged = look(job=name, target=target, home=project.home, store=store)
                if staged is not None:
                    _insist(staged.built, interpreter=interpreter, target=target)
                    print(f"target {target.name}: {upload(staged, store=store)[1]}")
    return 0


def _insist(built: Built, *, interpreter: str, target: FrozenTarget) -> None:
    """The first upload of a key is everybody's: InputError when it has another interpreter than what is insisted on."""
    if not has_interpreter(built, interpreter):
        raise InputError(
            f"the store of target {target.name!r} has environment {built.key} with another interpreter "
            f"({built.interpreter}), and runs use that one: mayfly env rm {built.key} --target {target.name}, then "
            "build with --upload again"
        )


def _build(
    project: Project,
    source: Source,
    *,
    extras: frozenset[str],
    python: str | None,
    interpreter: str,
    upgrade: bool,
) -> None:
    begin = time.monotonic()
    locked, new = lock(source, extras=extras, python=python, upgrade=upgrade)
    count, took = len(packages_of(locked.text)), time.monotonic() - begin
    print(f"lock         {source.lock_shown}: {count} packages, " + (f"{took:.1f} s" if new else "up to date"))
    begin = time.monotonic()
    folder = envs_folder(project.home)
    built, new = build(locked, requirements=source.shown, folder=folder, interpreter=interpreter, say=print)
    for note in built.notes:
        print(f"             {note}")
    took = time.monotonic() - begin
    print(
        f"archive      {archive_of(folder, built.key).relative_to(project.home)}: {built.bytes / 1e6:.0f} MB "
        f"({built.unpacked / 1e6:.0f} MB unpacked), " + (f"{took:.1f} s" if new else "built already")
    )


def list_environments(project: Project) -> int:
    """All environments: built here, in a store, or locked and neither."""
    now, folder = time.time(), envs_folder(project.home)
    found: dict[str, Built] = {}
    places: dict[str, list[str]] = {}
    for key in sorted(path.stem for path in folder.glob("*.json")):
        built = read_built(folder, key)
        if built is not None:
            found[key] = built
            places.setdefault(key, []).append("here")
    silent = 0
    for target in _targets(project, None, required=False):
        try:
            store = target_store(target)
            for key in keys_in(store):
                there = in_store(store, key)
                if there is not None:
                    found.setdefault(key, there)
                    places.setdefault(key, []).append(target.name)
        except MayflyError as error:
            print(f"target {target.name}: {error}")
            silent = 1
    used = _used_by(project)
    rows = []
    for key in sorted({*found, *used}, key=lambda key: -found[key].built_at if key in found else 0.0):
        jobs = ", ".join(used.get(key, ())) or "-"
        if key in found:
            one = found[key]
            where = ", ".join(places[key])
            rows.append((key, one.python, f"{one.bytes / 1e6:.0f} MB", age(now - one.built_at), jobs, where))
        else:
            rows.append((key, "-", "-", "-", jobs, "not built"))
    print(table(rows, head=("KEY", "PYTHON", "SIZE", "AGE", "JOBS", "WHERE")) if rows else "no environments yet")
    return silent


def remove_environment(project: Project, beginning: str, target_name: str | None) -> int:
    """Remove the archive that was built here; with a target the one in its staging store instead."""
    folder = envs_folder(project.home)
    if target_name is None:
        key = _one(beginning, (path.stem for path in folder.glob("*.json")), where=str(folder))
        (folder / f"{key}.json").unlink(missing_ok=True)
        archive_of(folder, key).unlink(missing_ok=True)
        print(
            f"removed {archive_of(folder, key)}; a run uses what is in its staging store, and else needs it built again"
        )
        return 0
    target = project.frozen_target(target_name)
    store = target_store(target)
    key = _one(beginning, keys_in(store), where=f"{store.url}/envs")
    remove_from(store, key)
    print(f"removed {key} from {store.url}/envs; the next run that needs it uploads it again")
    return 0


def _one(beginning: str, keys: Iterable[str], *, where: str) -> str:
    all_keys = sorted(keys)
    matching = [key for key in all_keys if key.startswith(beginning)]
    if len(matching) != 1:
        what = "several environments begin" if matching else "no environment begins"
        raise InputError(
            f"{what} with {beginning!r} in {where}; there are: {', '.join(matching or all_keys) or 'none'}"
        )
    return matching[0]


def _targets(project: Project, name: str | None, *, required: bool = True) -> list[FrozenTarget]:
    """The named target, or all that need an environment."""
    if name is not None:
        target = project.frozen_target(name)
        if not needs_environment(target):
            why = f"its nodes use {target.python}" if target.python else f"launcher {target.launcher} uses this Python"
            raise InputError(f"target {name!r} needs no environment: {why}")
        return [target]
    found = [target for target in map(project.frozen_target, project.targets()) if needs_environment(target)]
    if required and not found:
        raise InputError(
            "no target of config/targets.yaml needs an environment (launcher yarn or backend dataproc, without "
            "`python`)"
        )
    return found


def _used_by(project: Project) -> dict[str, list[str]]:
    """Key -> jobs whose lock it is."""
    used: dict[str, list[str]] = {}
    for name in project.job_names():
        try:
            locked = read_lock(source_of(project.home, name))
        except InputError:
            continue
        if locked is not None:
            used.setdefault(locked.key, []).append(name)
    return used
