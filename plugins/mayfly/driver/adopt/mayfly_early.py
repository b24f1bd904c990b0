"""The script's Python, started before it may run: it imports Dask while the cluster starts, and waits for the go.

The interpreter was started as `python script.py ARGUMENTS` and has got as far as its sitecustomize. All that follows
is its own doing, so path, arguments, tracebacks, exit codes and child processes are those of an ordinary start. What
this module has done must not show either:

- No code of the job runs here: its folders come onto the path with the go.
- Dask's modules are put aside until the script imports them. It may set variables of Dask's first: then Dask is
  imported anew.
- numpy is not imported, since its libraries read OMP_NUM_THREADS and the like once.
- Where a file of the job would have been found instead of something that is imported by now, or anything else went
  another way than expected, the process starts over after the go, with nothing prepared.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

KEPT = ("dask", "distributed")
LATER = "numpy"


class _Later(ModuleType):
    """In the place of a package that others bind when they are imported and use later: then it is imported."""

    touched = False
    open = False

    def __getattr__(self, name: str) -> Any:
        if not _Later.open:
            _Later.touched = _Later.touched or name == "__path__" or not name.startswith("__")
            raise AttributeError(name)
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


class _Kept:
    """Finder and loader of the modules that were put aside: the first import of one brings all of them back."""

    def __init__(self, modules: dict[str, ModuleType], variables: dict[str, str]) -> None:
        self._modules, self._variables, self._all_variables = modules, variables, _dask_variables()
        self._back = False

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name not in KEPT or self._back or self._all_variables != _dask_variables():
            return None
        return ModuleSpec(name, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules.update(self._modules)
        settings: Any = self._modules["dask.config"]
        settings.update(settings.config, settings.collect_env(self._variables))
        self._back = True


def wait() -> None:
    """Returns when the script shall run; ends the process when there is no go."""
    given = json.loads(os.environ.pop("MAYFLY_EARLY"))
    modules = _import_dask(given["folders"])
    try:
        with open(given["go"], encoding="utf-8") as pipe:  # closes it, too
            variables = json.loads(pipe.read())
    except ValueError:
        os._exit(0)
    os.environ.update(variables)
    if modules is None:
        os.execv(sys.executable, sys.orig_argv)
    _Later.open = True
    entries = [os.path.abspath(entry) for entry in variables["PYTHONPATH"].split(os.pathsep)]
    sys.path[:] = dict.fromkeys([*entries, *sys.path])
    sys.meta_path.insert(0, _Kept(modules, variables))


def _import_dask(folders: list[str]) -> dict[str, ModuleType] | None:
    """What was put aside; None when it must not be used."""
    try:
        if importlib.util.find_spec(LATER) is not None:
            sys.modules[LATER] = _Later(LATER)
        importlib.import_module("dask.distributed")
    except Exception:  # the script will see it, if it imports Dask at all
        return None
    sys.modules.pop(LATER, None)
    if _Later.touched or _names(folders) & {name.partition(".")[0] for name in sys.modules}:
        return None
    kept = [name for name in sys.modules if name.partition(".")[0] in KEPT]
    return {name: sys.modules.pop(name) for name in kept}


def _names(folders: list[str]) -> set[str]:
    """The top-level modules that these folders offer (and some that they do not quite)."""
    names = set()
    for folder in folders:
        if not os.path.isdir(folder):
            if os.path.exists(folder):  # an archive: who knows
                return set(sys.modules)
            continue
        for entry in os.scandir(folder):
            if entry.name.endswith((".py", ".pyc", ".so")) or os.path.exists(os.path.join(entry.path, "__init__.py")):
                names.add(entry.name.partition(".")[0])
    return names - {"sitecustomize"}


def _dask_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("DASK_")}
