"""The first thing in a YARN container: checks this interpreter, prepares the world of the worker, becomes Dask's own
worker command.

One file of its own, read by the interpreter of the node whatever it is: standard library only, nothing newer than
Python 3.7. Its settings are `mayfly.json` beside it. What a user wrote is passed as data, never through a shell.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time

CANNOT_START = 78
"""Exit code: this node's Python cannot run the worker."""
GOES_AWAY = 79
"""Exit code: this node is about to be taken away."""
HOLD_SECONDS = 10.0
"""For which such a node's place is held: YARN, which knows nothing, would give it out again and again."""


def problem_of(settings):
    """Why this interpreter will not do; empty when it will."""
    here = "{}.{}".format(*sys.version_info[:2])
    where = f"{sys.executable} ({here}) on {socket.gethostname()}"
    if here != settings["python"]:
        return (
            "python: the driver has Python {}, the worker would have {}: task functions cannot travel between "
            "minor versions. Ship an environment (`mayfly env build`), or set the target's `python` to an "
            "interpreter of the same version on all nodes".format(settings["python"], where)
        )
    try:
        from importlib.metadata import PackageNotFoundError, version
    except ImportError:
        return ""
    for package, wanted in sorted(settings["versions"].items()):
        try:
            found = version(package)
        except PackageNotFoundError:
            return f"{package}: not installed in {where}; the driver has {wanted}"
        if found != wanted:
            return f"{package}: {where} has {found}, the driver has {wanted}"
    return ""


def tell(settings, text):
    """The driver, by its watchdog's port; nobody minds when it cannot be reached."""
    try:
        address = (settings["watchdog"]["host"], settings["watchdog"]["port"])
        with socket.create_connection(address, timeout=10) as line:
            name = os.environ.get("MAYFLY_WORKER_NAME", "?")
            message = "{} {} {}\n".format(settings["watchdog"]["word"], name, " ".join(text.split()))
            line.sendall(message.encode())
            line.recv(100)
    except OSError as error:
        print(f"mayfly: the driver cannot be reached: {error}", file=sys.stderr)


def node_of(settings):
    """What the node's set-up says of it, see `mayfly.driver.node`; empty where there was none."""
    place = settings["env"].get("MAYFLY_READY_FILE") or os.environ.get("MAYFLY_READY_FILE")
    try:
        with open(place or "/opt/mayfly/ready.json", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def goes_away(settings, node):
    """Whether this node's cloud has said that it takes the node away; see `Leaving` of the preload."""
    given = dict(os.environ)
    given.update(settings["env"])
    if node.get("notice") != "google":
        return False
    try:
        host = given.get("GCE_METADATA_HOST") or "metadata.google.internal"
        with socket.create_connection((host.partition(":")[0], int(host.partition(":")[2] or 80)), timeout=2) as line:
            line.sendall(
                b"GET /computeMetadata/v1/instance/preempted HTTP/1.0\r\nMetadata-Flavor: Google\r\n"
                b"Host: " + host.encode() + b"\r\n\r\n"
            )
            said = line.makefile("rb").read(4096)
    except (OSError, ValueError):
        return False
    return said.partition(b"\r\n\r\n")[2].strip() == b"TRUE"


def hdfs_variables(environment, known=None):
    """What Arrow's client of hdfs:// wants to find, as far as the variables do not say so: Hadoop's class path, which
    the node's own command knows, its native library, Java. `known`: what the driver's machine has found; taken where it
    is here, too, since a container need not have Hadoop's commands on its path. Nothing where that cannot be found out:
    Arrow will say what it misses. The client of the package hdfs-native needs none of these."""
    path = environment.get("PATH", os.defpath)
    java = os.path.realpath(shutil.which("java", path=path) or "")
    command = os.path.realpath(shutil.which("hdfs", path=path) or "")
    homes = [environment.get(name) for name in ("HADOOP_HOME", "HADOOP_COMMON_HOME", "HADOOP_HDFS_HOME")]
    homes += [os.path.dirname(os.path.dirname(command)), "/usr/lib/hadoop"]
    folders = [os.path.join(home, "lib", "native") for home in homes if home] + ["/usr/lib64", "/usr/lib"]
    there = [folder for folder in folders if os.path.exists(os.path.join(folder, "libhdfs.so"))]
    found = {
        "JAVA_HOME": java[: -len("/bin/java")] if java.endswith("/bin/java") else "",
        "ARROW_LIBHDFS_DIR": there[0] if there else "",
        "CLASSPATH": "" if environment.get("CLASSPATH") else class_path(environment),
        # A whole JVM in each process. It must leave signals to Python, and may not take a quarter of the machine, which
        # nobody has counted.
        "LIBHDFS_OPTS": "-Xrs -Xmx512m",
    }
    for name, value in (known or {}).items():
        if not found.get(name) and any(os.path.exists(part) for part in value.split(os.pathsep)):
            found[name] = value
    return {name: value for name, value in found.items() if value and not environment.get(name)}


def class_path(environment):
    """Hadoop's, each jar by its name; empty where this machine does not know."""
    try:
        told = subprocess.run(
            ["hdfs", "classpath", "--glob"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.decode("utf-8", "replace").strip()


def variables_of(settings, folder, job):
    """The worker's environment: YARN's, the job's `env:`, ours."""
    variables = dict(os.environ)
    if settings["hdfs_user"]:  # the script and all workers are one user there
        variables.update(hdfs_variables(variables, settings["hdfs"]))
        variables["HADOOP_USER_NAME"] = settings["hdfs_user"]
    given = settings["env"]
    variables.update(given)
    variables["PYTHONPATH"] = os.pathsep.join(part for part in (job, given.get("PYTHONPATH", "")) if part)
    variables["PYTHONUNBUFFERED"] = "1"
    variables["DASK_CONFIG"] = os.path.join(folder, "dask.yaml")
    variables["MAYFLY_WORKER_FILE"] = os.path.join(folder, "worker.json")
    warnings = variables.get("PYTHONWARNINGS", "")
    variables["PYTHONWARNINGS"] = ",".join(part for part in (warnings, "ignore::SyntaxWarning:<unknown>") if part)
    return variables


def main():
    folder = os.getcwd()
    with open("mayfly.json", encoding="utf-8") as file:
        settings = json.load(file)
    problem = problem_of(settings)
    if problem:
        print("mayfly: " + problem, file=sys.stderr)
        tell(settings, problem)
        return CANNOT_START
    node = node_of(settings)
    if goes_away(settings, node):
        print(f"mayfly: {socket.gethostname()} is about to be taken away (preempted)", file=sys.stderr)
        time.sleep(HOLD_SECONDS)
        return GOES_AWAY
    # What lies here is ours alone, and so is what is spilled; what the job writes elsewhere is as the node has it.
    usual = os.umask(0o077)
    os.makedirs(os.path.join(folder, "scratch"), exist_ok=True)
    job = os.path.realpath("job")
    with open("worker.json", "w", encoding="utf-8") as file:
        json.dump(
            {"env": settings["env"], "folder": job, "output": "comm", "log": os.path.join(folder, "dask.log")}, file
        )
    key = os.path.join(folder, "worker.key")
    with open("tls.key", "rb") as source, open(key, "wb") as target:
        target.write(source.read())
    preload = os.path.join(folder, "mayfly_preload.py")
    command = [
        *[sys.executable, "-m", "distributed.cli.dask_worker", settings["scheduler"]],
        *["--name", os.environ["MAYFLY_WORKER_NAME"], "--nanny", "--no-dashboard"],
        *["--nthreads", str(settings["threads"]), "--memory-limit", str(settings["memory"])],
        *["--preload", preload, "--preload-nanny", preload],
        *["--local-directory", os.path.join(folder, "scratch")],
        *["--tls-ca-file", os.path.join(folder, "tls.crt"), "--tls-cert", os.path.join(folder, "tls.crt")],
        *["--tls-key", key, "--death-timeout", str(settings["patience"])],
        *settings["arguments"],
    ]
    os.umask(0o002 if node.get("shares") else usual)
    os.execve(sys.executable, command, variables_of(settings, folder, job))


if __name__ == "__main__":
    sys.exit(main())
