"""A PySpark job as Dataproc runs it: SparkSubmit in client mode on the master, as root, in a folder of the job's own.

What Dataproc's agent does with the processes of a cancelled job is not documented. Here the JVM gets SIGTERM and, when
it still runs after `cancel_seconds`, it is killed with SIGKILL, with all that descends from it (`kill_tree`) or alone.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

from tests.emulators.dataproc.machines import MachineJob
from tests.emulators.dataproc.nodes import hadoop
from tests.emulators.dataproc.nodes.cluster import Cluster
from tests.emulators.dataproc.nodes.namespaces import Entry
from tests.emulators.dataproc.nodes.processes import descendants, send

_SPARK = "/usr/lib/spark"
_CONF = "/etc/spark/conf"
_MAIN = "org.apache.spark.deploy.SparkSubmit"
# Of spark-class's own, what SparkSubmit needs on Java 17.
_OPENS = ("java.base/java.lang", "java.base/java.nio", "java.base/java.util", "java.base/sun.nio.ch")
_LOG4J = """\
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yy/MM/dd HH:mm:ss} %p %c{1}: %m%n%ex
"""


def run(cluster: Cluster, job: MachineJob, output: Path, cancelled: threading.Event) -> int:
    """Blocks; the exit code of the JVM, negative = the signal that ended it. OSError when there is no master, no Spark
    or no main file."""
    options = cluster.options
    if options.spark is None:
        raise OSError("these nodes have no Spark: the option `spark` names no SPARK_HOME")
    try:
        node = cluster.master().node
    except StopIteration:
        raise OSError(f"cluster {cluster.cluster.name} has no master") from None
    assert cluster.services is not None
    folder = f"/tmp/{job.id}"
    main = f"{folder}/{job.main_uri.rsplit('/', 1)[-1]}"
    node.put({
        folder: Entry(content=None, mode=0o755),
        main: Entry(content=cluster.objects.read(job.main_uri)),
        f"{_CONF}/log4j2.properties": Entry(content=_LOG4J),
    })  # fmt: skip
    defaults = {
        "spark.master": "yarn",
        "spark.submit.deployMode": "client",
        "spark.yarn.tags": f"dataproc_job_{job.id}",
    }
    python = job.properties.get("spark.pyspark.driver.python") or job.properties.get("spark.pyspark.python")
    settings = defaults | hadoop.properties(cluster.cluster, "spark") | dict(job.properties)
    settings.setdefault("spark.pyspark.python", options.python)
    conf = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    layout = cluster.services.layout
    argv = [
        f"{layout.java_home}/bin/java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
        *(f"--add-opens={name}=ALL-UNNAMED" for name in _OPENS), "-Djava.net.preferIPv4Stack=true",
        "-cp", f"{_CONF}:{_SPARK}/jars/*:{hadoop.CONF}", _MAIN, *conf, main, *job.args,
    ]  # fmt: skip
    env = layout.client_environment() | {
        "SPARK_HOME": _SPARK,
        "SPARK_CONF_DIR": _CONF,
        "PYSPARK_PYTHON": python or options.python,
        "PYTHONHASHSEED": "0",
        "USER": "root",
        "LOGNAME": "root",
    }
    process = node.start(argv, output=output, env=env | dict(job.env), cwd=folder)
    killed_at: float | None = None
    while (code := _wait(process)) is None:
        if cluster.ended.is_set():
            process.wait(240)
        elif cancelled.is_set():
            jvm = descendants(process.pid)[:1]
            if killed_at is None:
                killed_at = time.monotonic() + options.cancel_seconds
                send(jvm, signal.SIGTERM)
            elif time.monotonic() > killed_at:
                send(descendants(process.pid) if options.kill_tree else jvm, signal.SIGKILL)
    if node.name not in cluster.machines or not node.alive:
        raise OSError(f"cluster {cluster.cluster.name}: its master is gone")
    return code


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(0.1)
    except subprocess.TimeoutExpired:
        return None
