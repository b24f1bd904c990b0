"""An environment's way into the staging store: what plan looks at, uploads, and says.

    envs/<key>-<8 digits of its SHA-256>.tar.gz   the archive
    envs/<key>.json                               which archive it is, written after it, by the first who has one

Both by create-if-absent. Whoever reads the JSON can rely on a whole archive; of two machines that built the same key
the first one's is used by all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mayfly.contract import Environment, FrozenTarget, decode, encode
from mayfly.environments.packing import Built, archive_of, envs_folder, read_built
from mayfly.environments.requirements import extras_of, lacking, needs_environment, upload_seconds
from mayfly.environments.sources import is_fresh, read_lock, source_of
from mayfly.errors import InputError, PlanError
from mayfly.staging.stores import Store


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What a run's nodes will be given, and whether it is still to be uploaded from `local`."""

    built: Built
    local: Path | None

    @property
    def environment(self) -> Environment:
        built = self.built
        return Environment(path=built.path, sha256=built.sha256, bytes=built.bytes, python=built.python)

    def line(self, staging: str) -> str:
        """For people, like `mayfly.plan.describe`."""
        built = self.built
        what = (
            f"packages  {built.requirements}: environment {built.key}, Python {built.python}, "
            f"{len(built.packages)} packages, {built.bytes / 1e6:.0f} MB"
        )
        if self.local is None:
            return f"{what}; in the store already"
        return f"{what}; to be uploaded, about {max(1.0, upload_seconds(built.bytes, staging=staging)):.0f} s"


def look(*, job: str, target: FrozenTarget, home: Path, store: Store, places: Iterable[str] = ()) -> Staged | None:
    """What this job needs on this target; None when nothing. Reads two small files, and asks the store, nobody else.

    `places` are the job's inputs and outputs. PlanError says what to type when it is not there.
    """
    if not needs_environment(target):
        return None
    build = f"mayfly env build {job} --target {target.name}"
    try:
        source = source_of(home, job)
    except InputError as error:
        raise PlanError(
            f"target {target.name!r} needs an environment for its nodes, but {error}; then: {build}"
        ) from error
    locked = read_lock(source)
    if locked is None:
        raise PlanError(f"{source.shown} is not locked yet, which target {target.name!r} needs: {build}")
    if not is_fresh(source, locked, extras=extras_of(target)):
        raise PlanError(
            f"{source.lock_shown} is not what {source.shown} and this Mayfly ask for on target {target.name!r} (any "
            f"more): {build}"
        )
    if missing := lacking(places, lock=locked.text):
        packages = " ".join(sorted({package for _, package in missing}))
        raise PlanError(
            f"{missing[0][0]} is opened by the package {missing[0][1]}, which is not in {source.lock_shown}: add "
            f"{packages} to {source.shown}, then: {build}"
        )
    folder = envs_folder(home)
    here = read_built(folder, locked.key)
    there = in_store(store, locked.key)
    if there is not None:
        size = store.size(there.path)
        if size == there.bytes:
            return Staged(built=there, local=None)
        if size is not None:
            raise PlanError(
                f"{store.url}/{there.path} has {size} bytes, not {there.bytes}: it is damaged. Remove it with "
                f"mayfly env rm {there.key} --target {target.name}, then plan again"
            )
        if here is not None and here.sha256 == there.sha256:
            return Staged(built=here, local=archive_of(folder, here.key))
        raise PlanError(
            f"{store.url}/{there.path} is gone. Remove what is left with mayfly env rm {there.key} --target "
            f"{target.name}, then: {build}"
        )
    if here is None:
        raise PlanError(
            f"environment {locked.key} of {source.lock_shown} is neither in {store.url}/envs nor in {folder}: {build}"
        )
    return Staged(built=here, local=archive_of(folder, here.key))


def upload(staged: Staged, *, store: Store) -> tuple[Environment, str]:
    """(what the nodes get, what was done, for people). Idempotent; nothing is sent that is there."""
    if staged.local is None:
        return staged.environment, staged.line(store.url)
    begin = time.monotonic()
    sent = store.create_file(staged.built.path, staged.local)
    store.create(_json(staged.built.key), encode(staged.built))
    first = in_store(store, staged.built.key)
    assert first is not None
    done = Staged(built=first, local=None)
    if not sent or first.sha256 != staged.built.sha256:
        return done.environment, done.line(store.url)
    said = done.line(store.url).replace("in the store already", f"uploaded in {time.monotonic() - begin:.1f} s")
    return done.environment, said


def in_store(store: Store, key: str) -> Built | None:
    """What the store has under this key, by its own account."""
    data = store.get(_json(key))
    return None if data is None else decode(Built, data, where=f"{store.url}/{_json(key)}")


def _json(key: str) -> str:
    return f"envs/{key}.json"


def keys_in(store: Store) -> list[str]:
    """Keys of all environments in the store."""
    names = (path.removeprefix("envs/") for path in store.list("envs/"))
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def remove_from(store: Store, key: str) -> bool:
    """Remove the JSON first, so that nobody begins to use what is about to go. False when there was none."""
    there = in_store(store, key)
    if there is None:
        return False
    store.remove(_json(key))
    store.remove(there.path)
    return True
