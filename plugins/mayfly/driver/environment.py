"""What the script, the host and so every worker see: folders, variables, Dask settings."""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mayfly.contract import JobOrder, Json
from mayfly.driver.mayfly_worker import hdfs_variables
from mayfly.staging.bundle import PROGRAMS
from mayfly.staging.stores import Store

ADOPT = Path(__file__).parent / "adopt"


def unpack_code(store: Store, path: str, folder: Path) -> Path:
    """Download the code archive and unpack it into `folder`; where no backend has done so. ValueError when absent."""
    data = store.get(path)
    if data is None:
        raise ValueError(f"the job's code is gone: {store.url}/{path}")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(folder)
    return folder


def restore_modes(code: Path) -> None:
    """Make executable what was so in the job's folder, whoever has unpacked the archive into `code`."""
    with contextlib.suppress(FileNotFoundError):
        for name in json.loads((code / PROGRAMS).read_bytes()):
            path = code / "job" / name
            mode = path.stat().st_mode
            path.chmod(mode | (mode & 0o444) >> 2)  # for whoever may read it


def nested(settings: Mapping[str, Json]) -> dict[str, Any]:
    """Dask settings with dotted keys ("distributed.worker.memory.target") as the nested form that Dask reads."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        place = result
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        if isinstance(value, dict) and key != "logging":  # names of loggers have dots of their own
            value = nested(value)
        if isinstance(value, dict) and isinstance(place.get(last), dict):
            place[last] = _merged(place[last], value)
        else:
            place[last] = value
    return result


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def dask_settings(order: JobOrder) -> dict[str, Any]:
    """Ours below the job's own. Ours only bound what Dask leaves open (waiting for ever, reports of 39 MB)."""
    ours: dict[str, Json] = {
        "distributed.scheduler.no-workers-timeout": f"{order.limits.start:.0f}s",
        "distributed.scheduler.dashboard.tasks.task-stream-length": 10_000,
        # Every worker's two lines about our preload.
        "logging": {"distributed.preloading": "warning", "distributed.utils": "warning"},
    }
    return _merged(nested(ours), nested(order.dask))


def write_dask_settings(order: JobOrder, path: Path) -> None:
    """As JSON, which is YAML, too."""
    path.write_text(json.dumps(dask_settings(order), ensure_ascii=False, indent=1), encoding="utf-8")


def speaks_of_hdfs(order: JobOrder) -> bool:
    """Whether an input or output is on hdfs://, whose client needs more than a URL."""
    return any(place.startswith("hdfs://") for place in (*order.inputs.values(), *order.outputs.values()))


def base_environment(order: JobOrder, *, job: Path, dask_config: Path, ambient: Mapping[str, str]) -> dict[str, str]:
    """For every child: the ambient variables without foreign Dask settings, the job's `env:`, our own on top."""
    environment = {key: value for key, value in ambient.items() if not key.startswith("DASK_")}
    if speaks_of_hdfs(order):
        environment |= hdfs_variables(environment)
    environment |= order.env
    environment |= {key: value for key, value in ambient.items() if key.startswith("MAYFLY_")}
    environment["PYTHONPATH"] = _path(str(job), order.env.get("PYTHONPATH", ""), ambient.get("PYTHONPATH", ""))
    environment["PYTHONUNBUFFERED"] = "1"
    environment["DASK_CONFIG"] = str(dask_config)
    # Dask tries each DASK_ variable as a Python literal: a path such as /run/3fa warns "invalid decimal literal".
    warnings = environment.get("PYTHONWARNINGS")
    environment["PYTHONWARNINGS"] = ",".join(filter(None, [warnings, "ignore::SyntaxWarning:<unknown>"]))
    return environment


def script_environment(base: Mapping[str, str], *, order: JobOrder, job: Path) -> dict[str, str]:
    """The script's, but for `cluster_environment`: our sitecustomize is behind the job's folder.

    A job that brings a sitecustomize of its own would hide ours: then ours comes first and runs theirs."""
    environment = dict(base)
    own = (job / "sitecustomize.py").exists()
    first, second = (str(ADOPT), str(job)) if own else (str(job), str(ADOPT))
    rest = environment["PYTHONPATH"].split(os.pathsep)[1:]
    environment["PYTHONPATH"] = _path(first, second, *rest)
    environment |= {
        "MAYFLY_ADOPT": "1" if order.adopt else "0",
        "MAYFLY_WORKERS": str(max(1, order.workers.maximum)),
        "MAYFLY_SUPERVISOR": str(os.getpid()),
    }
    return environment


def early_environment(complete: Mapping[str, str], *, script: Path, go: int) -> dict[str, str]:
    """`script_environment` for a start before the script may run, see `adopt/mayfly_early.py`. `go`: the descriptor
    from which the rest comes. None of the job's folders is on the path yet."""
    entries = [entry for entry in complete["PYTHONPATH"].split(os.pathsep) if entry != str(ADOPT)]
    early = {"go": go, "folders": [str(script.parent), *entries]}
    return {**complete, "PYTHONPATH": str(ADOPT), "MAYFLY_EARLY": json.dumps(early)}


def speaks_of_dask(job: Path, script: Path) -> bool:
    """Whether it is likely that the script will import Dask, itself or through a module beside it."""
    return any(b"dask" in path.read_bytes() for path in {script, *job.glob("*.py"), *script.parent.glob("*.py")})


def cluster_environment(*, order: JobOrder, address: str, tls: Mapping[str, str]) -> dict[str, str]:
    """Where the script finds the cluster: known only when it is there."""
    environment = {
        "DASK_SCHEDULER_ADDRESS": address,
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": tls["ca"],
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": tls["cert"],
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": tls["key"],
    }
    if order.adopt:  # a LocalCluster of the script's own would die of it
        environment["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] = "true"
    return environment


def _path(*entries: str) -> str:
    return os.pathsep.join(entry for entry in entries if entry)
