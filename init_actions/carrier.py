"""The main file of a Dataproc PySpark job: carries one driver, and is the sign that the job still exists.

    carrier.py [--python PATH] RUNDIR JOB ATTEMPT CODE

RUNDIR is the run directory's URL (`<staging>/runs/<cluster>`), CODE the code archive's path below staging. This process
is a child of the SparkSubmit JVM, runs on whatever Python the image has (3.9 or later) and needs nothing but its
standard library. It starts the driver with the interpreter PATH in a session of its own and holds one end of a pipe:
where this process, its JVM or its standard output is gone, the pipe ends, and the driver takes that as the job's
cancellation (`MAYFLY_CARRIER_FD`). What the driver prints goes to a file, which is shown here: nothing that happens to
us can take the driver's own output away. Exit code: the driver's; 2 when nothing could be started.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

READY = "/opt/mayfly/ready.json"
"""Written by the init action; says where large files should go."""
SPARK_ONLY = ("PYSPARK_", "SPARK_", "PYTHON")
"""Variables of the JVM's that must not reach the driver: a secret, and a path to other people's packages."""
LOOK_SECONDS = 0.1
"""How often we look whether the driver has ended. Not by `pidfd_open`: conda's Pythons, of old headers, lack it."""
GONE_SECONDS = 180.0
"""How long we wait for a driver that was told that its carrier is gone."""

# ---------------------------------------------------------------- first role: the carrier


def carry(arguments: list[str]) -> int:
    python = sys.executable
    if arguments[:1] == ["--python"] and len(arguments) > 1:
        python, arguments = arguments[1], arguments[2:]
    if len(arguments) != 4:
        return _refuse("usage: carrier.py [--python PATH] RUNDIR JOB ATTEMPT CODE")
    folder = tempfile.mkdtemp(prefix="mayfly-driver-", dir=_scratch())
    output = os.path.join(folder, "driver.out")
    theirs, ours = os.pipe()
    parent = os.getppid()
    try:
        with open(output, "wb") as out:
            driver = subprocess.Popen(
                [python, os.path.abspath(__file__), "--driver", *arguments],
                cwd=folder,
                env=_environment(python, theirs),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs],
                start_new_session=True,
            )
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        nodes = arguments[0].rstrip("/") + "/nodes/"
        return _refuse(f"cannot start {python}: {error}. What the nodes' set-up did stands in {nodes}")
    os.close(theirs)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _terminate(driver))
    with open(output, "rb") as source:
        try:
            log = f"{arguments[0]}/jobs/{arguments[1]}/{arguments[2]}/"
            _write(f"mayfly: driver {driver.pid}; its log is below {log}\n".encode("utf-8", "surrogateescape"))
            while driver.poll() is None and os.getppid() == parent and not _closed():
                _show(source)
            _show(source)
        except OSError:  # nobody listens any more
            pass
    os.close(ours)  # where the driver lives, this is what it ends by
    try:
        code = driver.wait(GONE_SECONDS)
    except subprocess.TimeoutExpired:
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _terminate(driver: subprocess.Popen) -> None:
    driver.send_signal(signal.SIGTERM)


def _scratch() -> str | None:
    """A folder on the node's fastest disk; None = the usual one for temporary files."""
    try:
        with open(READY, encoding="utf-8") as file:
            folder = json.load(file).get("spill")
    except (OSError, ValueError, AttributeError):
        return None
    return folder if isinstance(folder, str) and os.access(folder, os.W_OK) else None


def _environment(python: str, carrier: int) -> dict[str, str]:
    given = {key: value for key, value in os.environ.items() if not key.startswith(SPARK_ONLY)}
    given.update(PYTHONNOUSERSITE="1", PYTHONUNBUFFERED="1", MAYFLY_CARRIER_FD=str(carrier))
    if os.path.dirname(python):  # what the script starts as `python` is this one
        given["PATH"] = os.path.dirname(python) + os.pathsep + given.get("PATH", os.defpath)
    return given


def _show(source) -> None:
    data = source.read()
    if data:
        _write(data)


def _write(data: bytes) -> None:
    """As it is: whether this Python could print it in its locale must not decide about the job."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _closed() -> bool:
    """Waits a moment. Whether nobody can read our standard output any more, also when we have nothing to say."""
    poll = select.poll()
    poll.register(1, 0)
    events = dict(poll.poll(LOOK_SECONDS * 1000))
    return bool(events.get(1, 0) & (select.POLLERR | select.POLLHUP))


def _refuse(text: str) -> int:
    print(f"mayfly: {text}", file=sys.stderr, flush=True)
    return 2


# ---------------------------------------------------------------- second role: it becomes the driver


def drive(arguments: list[str]) -> int:
    """Bring the job's code and become its driver. Returns only when that cannot be."""
    import io
    import zipfile

    # A request to stop must wait until the driver can write a record of it; what is blocked stays so.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    url, job, attempt, code = arguments
    url = url.rstrip("/")
    staging, _, cluster = url.rpartition("/runs/")
    folder = os.path.join(os.getcwd(), "code")
    try:
        order = json.loads(_fetch(f"{url}/jobs/{job}/{attempt}/job.json"))
        with zipfile.ZipFile(io.BytesIO(_fetch(f"{staging}/{code}"))) as whole:
            whole.extractall(folder)
    except Exception as error:  # each store has exceptions of its own
        known = isinstance(error, Missing)
        return _refuse(str(error) if known else f"the job cannot be fetched: {type(error).__name__}: {error}")
    os.environ.update(
        PYTHONPATH=os.path.join(folder, "lib"),
        MAYFLY_CODE_DIR=folder,
        MAYFLY_CLUSTER=cluster,
        MAYFLY_OWNER=str(order["owner"]),
    )
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        # Else gcsfs, which the job may use, asks Google itself for a bucket's type, and waits a minute for the answer.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    os.execv(sys.executable, [sys.executable, "-m", "mayfly.driver", url, job, attempt])


class Missing(Exception):
    """What should be in the store is not there."""


def _fetch(address: str) -> bytes:
    """The whole object."""
    if address.startswith("file://"):
        with open(address[len("file://") :], "rb") as file:
            return file.read()
    if address.startswith("gs://"):
        return _from_google(address)
    import fsspec  # of the job's environment

    with fsspec.open(address, "rb") as stream:
        return stream.read()


def _from_google(address: str) -> bytes:
    """By the JSON API, with the node's own service account; STORAGE_EMULATOR_HOST is in the place of Google's."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.parse import quote

    bucket, _, name = address[len("gs://") :].partition("/")
    base = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    base = base if not base or "://" in base else "http://" + base
    url = f"{base or 'https://storage.googleapis.com'}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
    for pause in (0.5, 1.0, 2.0, 4.0, 8.0, None):
        try:
            headers = {} if base else {"Authorization": f"Bearer {_token()}"}
            with _open(url, headers, direct=bool(base)) as answer:
                return answer.read()
        except HTTPError as error:
            with error:
                if error.code == 404:
                    raise Missing(f"{address} is missing; clear the run to plan anew") from None
                if error.code in (401, 403):
                    raise Missing(f"the nodes' service account may not read {address}: {error}") from None
                if pause is None or error.code < 429:
                    raise
        except (OSError, HTTPException):  # the latter when the answer breaks off
            if pause is None:
                raise
        time.sleep(pause)
    raise AssertionError("unreachable")


def _token() -> str:
    host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
    with _open(url, {"Metadata-Flavor": "Google"}, direct=True) as answer:
        return str(json.load(answer)["access_token"])


def _open(url: str, headers: dict[str, str], *, direct: bool):
    import urllib.request

    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if direct else []))
    return opener.open(urllib.request.Request(url, headers=headers), timeout=30)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--driver"]:
        sys.exit(drive(sys.argv[2:]))
    sys.exit(carry(sys.argv[1:]))
