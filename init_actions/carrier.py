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
import threading
import time

READY = "/opt/mayfly/ready.json"
"""Written by the init action; says where large files should go."""
SPARK_ONLY = ("PYSPARK_", "SPARK_", "PYTHON")
"""Variables of the JVM's that must not reach the driver: a secret, and a path to other people's packages."""
LOOK_SECONDS = 0.2
LATE_SECONDS = 60.0
"""How long a store may take to answer a driver whose carrier is gone already."""
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
            _write(
                f"mayfly: driver {driver.pid}; its log is below {arguments[0]}/jobs/{arguments[1]}/{arguments[2]}/\n"
            )
            while driver.poll() is None and os.getppid() == parent and not _closed():
                _show(source)
                time.sleep(LOOK_SECONDS)
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
    given["PATH"] = os.path.dirname(python) + os.pathsep + given.get("PATH", os.defpath)
    return given


def _show(source) -> None:
    data = source.read()
    if data:
        _write(data.decode("utf-8", "replace"))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _closed() -> bool:
    """Whether nobody can read our standard output any more, also when we have nothing to say."""
    poll = select.poll()
    poll.register(1, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _refuse(text: str) -> int:
    print(f"mayfly: {text}", file=sys.stderr, flush=True)
    return 2


# ---------------------------------------------------------------- second role: it becomes the driver


def drive(arguments: list[str]) -> int:
    """Bring the code and run the driver in this very process: what reads the store is imported once."""
    # A request to stop must wait until the driver can write a record of it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    driving = threading.Event()
    carrier = int(os.environ["MAYFLY_CARRIER_FD"])
    threading.Thread(target=_watch, args=(carrier, driving), name="carrier", daemon=True).start()
    url, job, attempt, code = arguments
    url = url.rstrip("/")
    staging, _, cluster = url.rpartition("/runs/")
    order = _fetch(f"{url}/jobs/{job}/{attempt}/job.json")
    archive = _fetch(f"{staging}/{code}")
    if order is None or archive is None:
        return 2
    import io
    import zipfile

    folder = os.path.join(os.getcwd(), "code")
    with zipfile.ZipFile(io.BytesIO(archive)) as whole:
        whole.extractall(folder)
    library = os.path.join(folder, "lib")
    os.environ.update(
        PYTHONPATH=library,
        MAYFLY_CODE_DIR=folder,
        MAYFLY_CLUSTER=cluster,
        MAYFLY_OWNER=str(json.loads(order)["owner"]),
    )
    sys.path[0] = library  # in the place of this file's folder
    from mayfly.driver.supervisor import main

    driving.set()  # from here on the driver watches
    return main([url, job, attempt])


def _fetch(address: str) -> bytes | None:
    """The whole object; None when it cannot be had, and said why."""
    try:
        if address.startswith("file://"):
            with open(address[len("file://") :], "rb") as file:
                return file.read()
        options = {}
        if address.startswith("gs://") and os.environ.get("STORAGE_EMULATOR_HOST"):
            # Else gcsfs asks Google itself for the bucket's type, and waits a minute for the answer.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            options["token"] = "anon"
        import fsspec

        with fsspec.open(address, "rb", **options) as stream:
            return stream.read()
    except ImportError as error:
        _refuse(
            f"{sys.executable} cannot read {address}: {error}. The job's environment needs fsspec and, for gs://, gcsfs"
        )
    except Exception as error:  # each store has exceptions of its own
        _refuse(f"cannot read {address}: {error!r}")
    return None


def _watch(carrier: int, driving: threading.Event) -> None:
    """Until the driver does so itself, which then ends at once and leaves a record: time for that. Nothing has been
    started yet, so nothing must be ended."""
    poll = select.poll()
    poll.register(carrier, select.POLLIN)
    while not driving.is_set():
        if poll.poll(500):
            if not driving.wait(LATE_SECONDS):
                os._exit(2)
            return


if __name__ == "__main__":
    if sys.argv[1:2] == ["--driver"]:
        sys.exit(drive(sys.argv[2:]))
    sys.exit(carry(sys.argv[1:]))
