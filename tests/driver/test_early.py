"""The script's Python that was started early behaves as one that is started when the cluster is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from mayfly.contract import Outcome
from mayfly.driver import environment
from tests.driver.driving import LIB, PATIENCE, Driving, command_line, held_start, make_order

ADDRESS = "tls://127.0.0.1:9"


@dataclass(frozen=True)
class Ran:
    code: int
    output: str

    def said(self) -> dict[str, object]:
        said: dict[str, object] = json.loads(self.output)
        return said


class Starter:
    """Starts `job.py` of a folder in both ways, with the environment that the driver gives it."""

    def __init__(self, folder: Path, files: Mapping[str, str], *, args: tuple[str, ...] = (), **order: object) -> None:
        self.job, self.script = folder / "job", folder / "job" / "sub" / "job.py"
        for name, text in files.items():
            path = self.job / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        config = folder / "dask.yaml"
        config.write_text("{}")
        self.command = [sys.executable, str(self.script), *args]
        self.order = make_order(**order)
        ambient = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
        base = environment.base_environment(
            self.order, job=self.job, dask_config=config, ambient=ambient | {"PYTHONPATH": str(LIB)}
        )
        self.complete = environment.script_environment(base, order=self.order, job=self.job)
        tls = dict.fromkeys(("ca", "cert", "key"), str(folder / "tls.crt"))
        self.cluster = environment.cluster_environment(order=self.order, address=ADDRESS, tls=tls)

    def late(self) -> Ran:
        return self._ended(self._start(self.complete | self.cluster))

    def early(self, *, go: bool = True) -> Ran:
        theirs, ours = os.pipe()
        variables = environment.early_environment(self.complete, script=self.script, go=theirs)
        process = self._start(variables, pass_fds=[theirs])
        os.close(theirs)
        with open(ours, "w") as pipe:
            if go:
                pipe.write(json.dumps({"PYTHONPATH": self.complete["PYTHONPATH"], **self.cluster}))
        return self._ended(process)

    def _start(self, variables: dict[str, str], pass_fds: list[int] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command,
            cwd=self.job,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=pass_fds or [],
        )

    @staticmethod
    def _ended(process: subprocess.Popen[str]) -> Ran:
        output, _ = process.communicate(timeout=PATIENCE)
        return Ran(process.returncode, output)


LOOK = """
import sys
already = sorted(name for name in sys.modules if name.partition(".")[0] in ("dask", "distributed", "numpy"))
import faulthandler, json, os, signal, threading
import helper

def alike(settings):
    # Dask finds a name in either spelling.
    if isinstance(settings, dict):
        return {name.replace("_", "-"): alike(value) for name, value in settings.items()}
    return settings

def look():
    import dask, distributed, numpy
    return {
        "argv": sys.argv, "orig_argv": sys.orig_argv, "name": __name__, "file": __file__, "cwd": os.getcwd(),
        "path": sys.path, "meta_path": len(sys.meta_path) - len(already), "flags": repr(sys.flags), "already": already,
        "main": sorted(vars(sys.modules["__main__"])), "environment": dict(os.environ), "helper": helper.__file__,
        "descriptors": len(os.listdir("/proc/self/fd")), "threads": threading.active_count(),
        "signals": {number.name: repr(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)},
        "caught": next(line for line in open("/proc/self/status") if line.startswith("SigCgt")),
        "config": alike(dask.config.config), "stdin": sys.stdin.read(), "dask": dask.__spec__.origin,
        "client": distributed.Client.__init__.__qualname__, "new": dask is sys.modules["dask"],
    }

if __name__ == "__main__":
    print(json.dumps(look(), default=repr))
    sys.exit(7)
"""


def test_the_script_sees_the_same_world(tmp_path: Path) -> None:
    files = {"sub/job.py": LOOK, "sub/helper.py": "", "helper.py": "hidden", "sub/lib/other.py": ""}
    starter = Starter(tmp_path, files, args=("-x", "two words", ""), env={"PYTHONPATH": "sub/lib", "WORD": "größe"})
    early, late = starter.early(), starter.late()
    assert early.code == late.code == 7, early.output
    here, there = early.said(), late.said()
    assert here.pop("already") == [] == there.pop("already")
    assert here.pop("meta_path") == int(str(there.pop("meta_path"))) + 1  # ours, which brings Dask back
    assert here == there


@pytest.mark.parametrize(
    "script",
    [
        "def f():\n    return 1 / 0\n\nf()",
        "import dask.distributed, no_such_module",
        "from dask.distributed import NoSuchName",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
        "import warnings; warnings.warn('mind this')",
        "import atexit, sys; atexit.register(print, 'at exit'); sys.exit('a reason')",
        "def f(:",
    ],
)
def test_it_ends_in_the_same_way(tmp_path: Path, script: str) -> None:
    starter = Starter(tmp_path, {"sub/job.py": script})
    assert starter.early() == starter.late()


def test_processes_that_it_spawns_find_its_main_module(tmp_path: Path) -> None:
    script = """
import multiprocessing, os, sys
from dask.distributed import Client

class Thing:
    def __init__(self, number):
        self.number = number

def work(thing):
    return (thing.number, __name__, os.environ.get("MAYFLY_EARLY"), os.environ["DASK_SCHEDULER_ADDRESS"], sys.argv[1:])

if __name__ == "__main__":
    for method in ("spawn", "fork", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, pool.map(work, [Thing(1)]))
"""
    starter = Starter(tmp_path, {"sub/job.py": script}, args=("a",))
    early = starter.early()
    assert early == starter.late()
    assert early.output.count(f"None, '{ADDRESS}', ['a']") == 3, early.output


def test_without_a_go_it_ends_silently(tmp_path: Path) -> None:
    starter = Starter(tmp_path, {"sub/job.py": "print('it ran')", "sitecustomize.py": "print('so did I')"})
    assert starter.early(go=False) == Ran(0, "")


@pytest.mark.parametrize("own", ["toolz.py", "sub/yaml/__init__.py", "sub/numpy.py", "sub/distributed.py"])
def test_a_module_of_the_job_goes_before_one_of_the_same_name(tmp_path: Path, own: str) -> None:
    name = own.removeprefix("sub/").partition("/")[0].removesuffix(".py")
    script = f"import {name}; print({name}.__file__)"
    starter = Starter(tmp_path, {"sub/job.py": script, own: "MINE = 1"})
    early = starter.early()
    assert early == starter.late()
    assert early.output == f"{starter.job / own}\n"
    assert starter.early(go=False) == Ran(0, "")


def test_a_folder_of_data_hides_nothing(tmp_path: Path) -> None:
    """It is used as if it were not there: what was prepared holds."""
    script = "import sys; early = 'tornado' in sys.modules; import yaml; print(early, yaml.safe_load('1'))"
    starter = Starter(tmp_path, {"sub/job.py": script, "yaml/data.txt": ""})
    assert starter.early() == Ran(0, "True 1\n")


def test_variables_that_the_script_sets_before_it_imports_count(tmp_path: Path) -> None:
    script = """
import os
os.environ["DASK_DISTRIBUTED__COMM__SHARD"] = "1 MiB"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import dask, distributed.protocol.utils as utils
print(dask.config.get("distributed.comm.shard"), utils.BIG_BYTES_SHARD_SIZE, dask.config.get("scheduler-address"))
import numpy
print(len(os.listdir("/proc/self/task")), numpy.ones(3).sum())
"""
    starter = Starter(tmp_path, {"sub/job.py": script})
    early = starter.early()
    assert early == starter.late()
    assert early.output == f"1 MiB 1048576 {ADDRESS}\n1 3.0\n"


def test_numpy_is_there_where_dask_wants_it(tmp_path: Path) -> None:
    script = """
import sys
import distributed.protocol.utils as utils
before = "numpy" in sys.modules
memory = utils.host_array(4)
import numpy
print(before, type(memory.obj) is numpy.ndarray, utils.numpy.empty is numpy.empty)
"""
    assert Starter(tmp_path, {"sub/job.py": script}).early() == Ran(0, "False True True\n")


def test_an_interpreter_without_dask_runs_a_script_that_needs_none(tmp_path: Path) -> None:
    """What cannot be prepared is the script's own affair, if it wants it at all."""
    starter = Starter(tmp_path, {"sub/job.py": "print('no', 'dask here')"}, env={"PYTHONNOUSERSITE": "1"})
    starter.command[1:1] = ["-S", "-c", "import sitecustomize; exec(open(__import__('sys').argv[1]).read())"]
    assert starter.early().output == "no dask here\n"


def test_a_script_that_was_started_early_counts_from_its_go(driving: Driving, tmp_path: Path) -> None:
    """Until then it is nobody's: neither in the record's peaks nor as an exit code."""
    drive = driving.run({"job.py": "import dask"}, inputs={"flights": str(tmp_path / "missing.csv")})
    record = drive.record()
    assert record.exit_code is None
    assert record.peaks.script_memory == 0
    assert "left behind" not in drive.log()


def test_a_waiting_process_that_dies_is_replaced(driving: Driving) -> None:
    go = driving.folder / "go"
    files, settings = held_start(go)
    drive = driving.start({"job.py": "import dask; print('it ran')", **files}, dask=settings)
    drive.wait(lambda: any("job.py" in part for child in drive.descendants() for part in command_line(child)))
    drive.child("job.py").kill()
    go.touch()
    assert drive.record().outcome is Outcome.SUCCESS, drive.log()
    assert drive.log().count("it ran") == 1
