"""Failures are recognised from what scripts really print (`test_classify_logs/`, one file a failing script) and from
what the supervisor knows."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.contract import Failure, FailureClass, Peaks, Phase, Status, Timestamp
from mayfly.failures.advice import signal_name
from mayfly.failures.classify import Facts, classify, cluster_lost, driver_died
from mayfly.failures.logtext import MAX_CHARS, MAX_LINES, bounded, clean, last_traceback
from mayfly.failures.rules import RULES

LOGS = Path(__file__).with_name("test_classify_logs")
EXIT_CODES = json.loads((LOGS / "exit_codes.json").read_text())
GB = 10**9

USER = FailureClass.USER_ERROR
WORKER_MEMORY = FailureClass.OUT_OF_MEMORY_WORKER
BUDGET = "distributed.nanny.memory - WARNING - Worker tcp://x exceeded 95% memory budget. Restarting..."


def log(name: str) -> tuple[str, ...]:
    return tuple((LOGS / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def script(name: str, **more: object) -> Failure:
    facts = Facts(
        ended_by="script",
        exit_code=EXIT_CODES[name],
        log_tail=log(name),
        phase="run",
        worker_memory_limit=2 * GB,
        peaks=Peaks(worker_memory=1_900_000_000, script_memory=GB),
    )
    failure = classify(replace(facts, **more))  # type: ignore[arg-type]
    assert failure is not None
    return failure


# name of the log: class, retryable, words in the evidence, words in the advice
REAL = {
    "abort": (USER, False, "SIGABRT", "native code"),
    "cast_in_task": (USER, False, "cast_in_task.py", "exception above"),
    "chained": (USER, False, "caused by FileNotFoundError", "exception above"),
    "client_closed_early": (USER, False, "future.result()", "already closed"),
    "disk_full": (FailureClass.OUTPUT_NOT_WRITABLE, False, "No space left", "Free space"),
    "exception_group": (USER, False, "ValueError: bad 1", "exception above"),
    "exit_3": (USER, False, "nothing to do for this date", "exit code 3"),
    "exit_message": (USER, False, "no input rows for 2026-01-01", "exit code 1"),
    "handled_then_exit_2": (USER, False, "invalid literal", "exit code 2"),
    "import_name": (USER, False, "loadz", "hides it"),
    "indentation": (USER, False, "IndentationError", "indentation.py, line 2"),
    "key_error_in_script": (USER, False, "KeyError: 'carier'", "exception above"),
    "key_error_in_task": (USER, False, "return table[x]", "exception above"),
    "keyboard_interrupt": (FailureClass.SCRIPT_KILLED, True, "SIGINT", "outside"),
    "killed_worker_exit": (FailureClass.WORKER_LOST, True, "KilledWorker", "fresh workers"),
    "killed_worker_memory": (WORKER_MEMORY, False, "exceeded 95% memory budget", "try 4 GB"),
    "killed_worker_segv": (FailureClass.WORKER_LOST, True, "KilledWorker", "1.9 GB of 2 GB"),
    "killed_worker_sigkill": (FailureClass.WORKER_LOST, True, "client.submit(killed, 1)", "fresh workers"),
    "long_message": (USER, False, "ValueError: rows:", "exception above"),
    "memory_error_script": (FailureClass.OUT_OF_MEMORY_SCRIPT, False, "Unable to allocate", "used 1 GB"),
    "memory_error_submit": (WORKER_MEMORY, False, "bytearray(10**15)", "cluster.worker.memory"),
    "memory_error_task": (WORKER_MEMORY, False, "Unable to allocate", "cluster.worker.memory"),
    "mismatched_dtypes": (USER, False, "Mismatched dtypes", "dtype="),
    "module_not_found": (USER, False, "import helprs", "job's folder"),
    "no_main_guard": (USER, False, "BrokenProcessPool", '__name__ == "__main__"'),
    "no_valid_worker": (USER, False, "'GPU': 1", "resources="),
    "no_workers": (FailureClass.WORKER_LOST, True, "without any running workers", "fresh workers"),
    "noise_after": (USER, False, "KeyError: 'origin'", "exception above"),
    "os_exit": (USER, False, "exit code 7", "os._exit"),
    "permission": (USER, False, "Permission denied", "outputs"),
    "pickle_lock": (USER, False, "Could not serialize", "inside the task"),
    "recursion": (USER, False, "RecursionError", "exception above"),
    "scheduler_gone": (FailureClass.SCHEDULER_DIED, True, "Timed out trying to connect", "lost its connection"),
    "segfault": (USER, False, "SIGSEGV (segmentation fault)", "PYTHONFAULTHANDLER"),
    "segfault_faulthandler": (USER, False, "line 4 in crash", "native code"),
    "shutdown_early": (USER, False, "Client is closed", "already closed"),
    "syntax_error": (USER, False, "def f(:", "syntax_error.py, line 1"),
    "unexpected_keywords": (USER, False, "n_workers=4", "plain `Client()`"),
    "value_error_in_delayed": (USER, False, "return float(x)", "exception above"),
    "wait_for_workers": (USER, False, "Only 1/4 workers", "waits for 4 workers"),
}


def test_every_log_is_in_the_table() -> None:
    assert {path.stem for path in LOGS.glob("*.txt")} == set(REAL) == set(EXIT_CODES)


@pytest.mark.parametrize("name", REAL)
def test_real_logs(name: str) -> None:
    cls, retryable, evidence, advice = REAL[name]
    failure = script(name)
    assert failure.cls is cls, failure.summary()
    assert failure.retryable is retryable
    assert evidence in "\n".join(failure.evidence)
    assert advice in failure.advice


def test_success_is_no_failure() -> None:
    assert classify(Facts(ended_by="script", exit_code=0)) is None
    noise = ("Traceback (most recent call last):", '  File "x.py", line 1, in f', "KeyError: 'handled'")
    assert classify(Facts(ended_by="script", exit_code=0, log_tail=noise)) is None


# ---------------------------------------------------------------- the traceback


def test_only_the_users_frames_are_quoted() -> None:
    quoted = script("key_error_in_script").evidence
    assert not any("site-packages" in line for line in quoted)
    assert not any(set(line.strip()) <= {"^", "~"} for line in quoted)
    assert quoted[0] == '  File "key_error_in_script.py", line 9, in <module>'


def test_the_traceback_that_ended_the_script_wins_over_noise() -> None:
    found = last_traceback(log("noise_after"))
    assert found is not None
    assert found.text == "KeyError: 'origin'"


def test_a_workers_traceback_counts_when_the_script_printed_none() -> None:
    worker = (
        "[worker 1] Traceback (most recent call last):",
        '[worker 1]   File "/scratch/job/helpers.py", line 3, in load',
        "[worker 1]     return table[key]",
        "[worker 1] KeyError: 'x'",
        "the script gives up",
    )
    found = last_traceback(worker)
    assert found is not None
    assert found.quoted() == ('  File "helpers.py", line 3, in load', "    return table[key]", "KeyError: 'x'")
    own = ("Traceback (most recent call last):", '  File "/scratch/job/a.py", line 1, in f', "ValueError: mine")
    found = last_traceback((*own, *worker))
    assert found is not None
    assert found.message[0] == "ValueError: mine"


@pytest.mark.parametrize(
    "tail",
    [
        (),
        ("Traceback (most recent call last):",),
        ("Traceback (most recent call last):", '  File "a.py", line 1, in f'),
        ('  File "a.py", line 1', "    x = ("),
        ("", "", ""),
    ],
)
def test_a_cut_off_traceback_is_none(tail: tuple[str, ...]) -> None:
    assert last_traceback(tail) is None
    failure = classify(Facts(ended_by="script", exit_code=1, log_tail=tail))
    assert failure is not None
    assert failure.cls is USER


def test_a_traceback_whose_beginning_is_no_longer_in_the_tail() -> None:
    found = last_traceback(log("key_error_in_task")[4:])
    assert found is not None
    assert found.text == "KeyError: 'b'"
    assert classify(Facts(ended_by="script", exit_code=1, log_tail=log("key_error_in_task")[4:])) is not None


def test_what_is_quoted_cannot_move_a_terminal() -> None:
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07text\x07") == "red text\ufffd"
    assert clean(" 10%\r 50%\r100% done\n") == "100% done"
    assert clean("a\u202eb\u200bc\x00") == "a\ufffdb\ufffdc\ufffd"


def test_evidence_is_bounded() -> None:
    lines = [f"{number} " + "x" * 1000 for number in range(500)]
    kept = bounded(lines)
    assert len(kept) == MAX_LINES
    assert all(len(line) <= MAX_CHARS for line in kept)
    assert kept[0].startswith("0 ") and kept[-1].startswith("499 ")
    assert "487 lines left out" in "\n".join(kept)


def test_paths_of_the_job_are_shown_as_the_user_knows_them() -> None:
    dump = '  File "/state/clusters/x/code/0a1b2c3d4e5f/job/sub/job/slow.py", line 2 in <module>'
    failure = classify(Facts(ended_by="timeout", exit_code=-15, limit_s=60, log_tail=(dump,)))
    assert failure is not None
    assert failure.evidence == ('  File "sub/job/slow.py", line 2 in <module>',)


# ---------------------------------------------------------------- what the supervisor knows

KNOWN: dict[str, tuple[Facts, FailureClass, bool, str, str]] = {
    "cancelled": (
        Facts(ended_by="cancelled", exit_code=-15, detail="SIGTERM"),
        FailureClass.CANCELLED, False, "SIGTERM", "clear the whole run",
    ),
    "carrier": (
        Facts(ended_by="carrier", exit_code=-15, detail="carrier gone"),
        FailureClass.CANCELLED, False, "carrier gone", "cloud's job ended",
    ),
    "closing": (
        Facts(ended_by="closing", exit_code=-15, detail="closing.json was written"),
        FailureClass.CANCELLED, False, "closing.json", "being deleted",
    ),
    "lease": (
        Facts(ended_by="lease", exit_code=-15, limit_s=600, detail="no new lease for 600 s"),
        FailureClass.ORCHESTRATOR_LOST, True, "no new lease", "for 10m",
    ),
    "expired": (
        Facts(ended_by="expired", exit_code=-15, detail="expired at 10:00"),
        FailureClass.ORCHESTRATOR_LOST, False, "expired at", "maximum age",
    ),
    "timeout": (
        Facts(ended_by="timeout", exit_code=-15, limit_s=5400, log_tail=("epoch 3", "epoch 4")),
        FailureClass.TIMEOUT, False, "epoch 4", "limit of 1h 30m",
    ),
    "stalled": (
        Facts(ended_by="stalled", exit_code=-15, limit_s=1800, detail="nothing moved"),
        FailureClass.STALLED, True, "nothing moved", "For 30m",
    ),
    "driver gone": (
        Facts(ended_by="gone", detail="no process"),
        FailureClass.DRIVER_DIED, True, "no process", "retry starts a fresh one",
    ),
    "input": (
        Facts(ended_by="preflight", preflight_kind="input", preflight_error="flights: /data/x: not there (worker 1)"),
        FailureClass.INPUT_MISSING, False, "/data/x", "`inputs`",
    ),
    "output": (
        Facts(ended_by="preflight", preflight_kind="output", preflight_error="worker 1 cannot write; made by ada"),
        FailureClass.OUTPUT_NOT_WRITABLE, False, "made by ada", "`outputs`",
    ),
    "versions": (
        Facts(ended_by="preflight", preflight_kind="version", preflight_error="dask: 2026.8.0, worker 1 2026.7.0"),
        FailureClass.VERSION_MISMATCH, False, "2026.7.0", "one environment",
    ),
    "script has a syntax error": (
        Facts(
            ended_by="preflight", preflight_kind="script",
            preflight_error='  File "/s/job/a.py", line 2\n    def f(\n         ^\nSyntaxError: \'(\' was never closed',
        ),
        USER, False, "was never closed", "a.py, line 2",
    ),
    "script that cannot be started": (
        Facts(ended_by="preflight", preflight_kind="script", preflight_error="trips.py is no regular file"),
        USER, False, "no regular file", "cannot be started",
    ),
    "workers do not come": (
        Facts(ended_by="start", limit_s=120, phase="start Dask", detail="0 of 2 workers after 120 s"),
        FailureClass.START_FAILED, True, "0 of 2 workers", "within 2m",
    ),
    "no dask in the environment": (
        Facts(ended_by="start", host_exit=1, host_log_tail=("ModuleNotFoundError: No module named 'distributed'",)),
        FailureClass.START_FAILED, False, "No module named 'distributed'", "`python`",
    ),
    "workers too small to start": (
        Facts(
            ended_by="start", worker_memory_limit=100_000_000,
            host_log_tail=(BUDGET,),
        ),
        WORKER_MEMORY, False, "memory budget", "try 0.2 GB",
    ),
    "preflight without a kind": (
        Facts(ended_by="preflight", preflight_error="no answer from worker 1 within 60 s"),
        FailureClass.START_FAILED, True, "no answer", "start_timeout",
    ),
    "script over its limit": (
        Facts(
            ended_by="script_memory", exit_code=-15, detail="it uses 2.1 GB of 2 GB", script_memory_limit=2 * GB,
            peaks=Peaks(script_memory=2_100_000_000),
        ),
        FailureClass.OUT_OF_MEMORY_SCRIPT, False, "2.1 GB of 2 GB", "to_parquet",
    ),
    "script killed by the kernel": (
        Facts(ended_by="script", exit_code=-9, oom_kills=1, log_tail=("reading",)),
        FailureClass.OUT_OF_MEMORY_SCRIPT, False, "SIGKILL", "to_parquet",
    ),
    "script killed near its limit": (
        Facts(ended_by="script", exit_code=-9, script_memory_limit=GB, peaks=Peaks(script_memory=950_000_000)),
        FailureClass.OUT_OF_MEMORY_SCRIPT, False, "SIGKILL", "950 MB of 1 GB",
    ),
    "script that passes on how a program below it was killed": (
        Facts(ended_by="script", exit_code=137),
        USER, False, "exit code 137", "a program that it ran got SIGKILL",
    ),
    "script that ends like a crash": (
        Facts(ended_by="script", exit_code=139, log_tail=("tool.sh: Segmentation fault",)),
        USER, False, "exit code 139", "sys.exit",
    ),
    "script with an exit code of its own": (
        Facts(ended_by="script", exit_code=200),
        USER, False, "exit code 200", "after the last lines above. Exit code 0",
    ),
    "program below the script killed by the kernel": (
        Facts(ended_by="script", exit_code=137, oom_kills=2),
        FailureClass.OUT_OF_MEMORY_SCRIPT, False, "exit code 137", "to_parquet",
    ),
    "script killed by somebody": (
        Facts(ended_by="script", exit_code=-9, script_memory_limit=8 * GB, peaks=Peaks(script_memory=GB)),
        FailureClass.SCRIPT_KILLED, True, "SIGKILL", "had used 1 GB",
    ),
    "script terminated by somebody": (
        Facts(ended_by="script", exit_code=-15),
        FailureClass.SCRIPT_KILLED, True, "SIGTERM", "administrator",
    ),
    "bad_alloc": (
        Facts(ended_by="script", exit_code=-6, log_tail=("terminate called after throwing 'std::bad_alloc'",)),
        FailureClass.OUT_OF_MEMORY_SCRIPT, False, "bad_alloc", "to_parquet",
    ),
    "os._exit in the scheduler": (
        Facts(ended_by="host", host_exit=3, detail="the host process ended with exit code 3", host_log_tail=("bye",)),
        FailureClass.SCHEDULER_DIED, False, "exit code 3", "os._exit",
    ),
    "segfault in the scheduler": (
        Facts(ended_by="host", host_exit=-11),
        FailureClass.SCHEDULER_DIED, False, "SIGSEGV", "native code",
    ),
    "client.shutdown() with adopt off": (
        Facts(ended_by="host", host_exit=0),
        FailureClass.SCHEDULER_DIED, False, "exit code 0", "client.shutdown()",
    ),
    "scheduler killed from outside": (
        Facts(ended_by="host", host_exit=-9),
        FailureClass.SCHEDULER_DIED, True, "SIGKILL", "outside the job",
    ),
    "scheduler killed by the kernel": (
        Facts(ended_by="host", host_exit=-9, oom_kills=1, peaks=Peaks(host_memory=3 * GB)),
        FailureClass.OUT_OF_MEMORY_SCHEDULER, False, "SIGKILL", "3 GB seen",
    ),
    "scheduler's MemoryError": (
        Facts(ended_by="host", host_exit=1, host_log_tail=("MemoryError",)),
        FailureClass.OUT_OF_MEMORY_SCHEDULER, False, "MemoryError", "Make the graph smaller",
    ),
    "os._exit in the scheduler, long after a worker was short of memory": (
        Facts(
            ended_by="host", host_exit=3,
            host_log_tail=(BUDGET,),
        ),
        FailureClass.SCHEDULER_DIED, False, "exit code 3", "os._exit",
    ),
    "never started": (
        Facts(ended_by="script", exit_code=None, detail="OSError: [Errno 11] Resource temporarily unavailable"),
        FailureClass.START_FAILED, True, "Errno 11", "could not be started",
    ),
    "a way to end that this version does not know": (
        Facts(ended_by="meteorite"), USER, False, "not known", "'meteorite'",
    ),
}  # fmt: skip


def no_data(where: str, problem: str, kind: str = "input") -> Facts:
    by = "the script's side, user root (uid 0) on m" if kind == "input" else "worker 0, user yarn (uid 8001) on w-0"
    said = f"{kind} 'trips' = {where!r}: {by} cannot {'read' if kind == 'input' else 'write into'} it: {problem}"
    return Facts(ended_by="preflight", preflight_kind=kind, preflight_error=said)


# The words of s3fs 2026.9 (Amazon's codes, and those of an S3 server), fsspec, pyarrow 26 and hdfs-native 0.14.
S3_KEY = "The AWS Access Key Id you provided does not exist in our records."
S3_SIGNATURE = "The request signature we calculated does not match the signature you provided. Check your key"
S3_NOBODY = 'EndpointConnectionError: Could not connect to the endpoint URL: "http://10.0.0.9:9000/lake?list-type=2"'
HDFS_OUTPUT = "PermissionError: [Errno 13] Permission denied: user=yarn, access=WRITE, inode=/data:hdfs:hadoop"
KNOWN |= {
    "no s3fs": (
        no_data("s3://lake/a.csv", "ImportError: Install s3fs to access S3"),
        FailureClass.START_FAILED, False, "Install s3fs", "jobs/requirements.txt",
    ),
    "no gcsfs": (
        no_data("gs://lake/a.csv", "ImportError: Please install gcsfs to access Google Storage"),
        FailureClass.START_FAILED, False, "gcsfs", "mayfly env build",
    ),
    "no libhdfs": (
        no_data("hdfs:///a", "OSError: Unable to load libhdfs dlopen(/usr/lib/hadoop/lib/native/libhdfs.so) failed"),
        FailureClass.START_FAILED, False, "libhdfs.so", "hdfs-native",
    ),
    "no java for libhdfs": (
        no_data("hdfs:///a", "OSError: Unable to load libjvm dlopen(/usr/lib/jvm/default-java/libjvm.so) failed"),
        FailureClass.START_FAILED, False, "libjvm", "hdfs-native",
    ),
    "no class path for libhdfs": (
        no_data("hdfs:///a", "OSError: HDFS connection failed"),
        FailureClass.START_FAILED, False, "HDFS connection failed", "class path",
    ),
    "no bucket to read": (
        no_data("s3://laek/a.csv", "does not exist: The specified bucket does not exist."),
        FailureClass.INPUT_MISSING, False, "s3://laek", "no such bucket",
    ),
    "no bucket of a pattern": (
        no_data("s3://laek/*.csv", "no file matches: the bucket laek does not exist"),
        FailureClass.INPUT_MISSING, False, "the bucket laek", "no such bucket",
    ),
    "no bucket to write": (
        no_data("s3://laek/out", "FileNotFoundError: The specified bucket does not exist.", "output"),
        FailureClass.OUTPUT_NOT_WRITABLE, False, "s3://laek", "makes no buckets",
    ),
    "no key": (
        no_data("s3://lake/a.csv", "NoCredentialsError: Unable to locate credentials"),
        FailureClass.PERMISSION, False, "NoCredentialsError", "AWS_CONFIG_FILE",
    ),
    "a key that nobody knows": (
        no_data("s3://lake/*.csv", f"PermissionError: {S3_KEY}"),
        FailureClass.PERMISSION, False, "Key Id", "AWS_CONFIG_FILE",
    ),
    "a key of the wrong secret": (
        no_data("s3://lake/out", f"PermissionError: {S3_SIGNATURE}", "output"),
        FailureClass.PERMISSION, False, "signature", "no place in `env`",
    ),
    "a key that may not look": (
        no_data("s3://lake/a.csv", "PermissionError: Forbidden"),
        FailureClass.PERMISSION, False, "Forbidden", "may not do this",
    ),
    "no S3 server": (
        no_data("s3://lake/*.csv", S3_NOBODY),
        FailureClass.NETWORK, True, "10.0.0.9:9000", "Nobody answered",
    ),
    "no NameNode, by Arrow": (
        no_data("hdfs://nn/a", "ConnectionError: the NameNode does not answer, not even for /; the log has"),
        FailureClass.NETWORK, True, "the NameNode does not answer", "8020",
    ),
    "no NameNode, by hdfs-native": (
        no_data("hdfs://nn/a", "OSError: Connection refused (os error 111)"),
        FailureClass.NETWORK, True, "refused", "8020",
    ),
    "a NameNode of no name": (
        no_data("hdfs://nn/a", "OSError: failed to lookup address information: Name or service not known"),
        FailureClass.NETWORK, True, "lookup address", "name and port",
    ),
    "an object that is not there": (
        no_data("s3://lake/a.csv", "does not exist"), FailureClass.INPUT_MISSING, False, "a.csv", "`inputs`",
    ),
    "a file system's own permissions": (
        no_data("hdfs:///data/out", HDFS_OUTPUT, "output"),
        FailureClass.OUTPUT_NOT_WRITABLE, False, "user=yarn", "`outputs`",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("last", "advice"),
    [
        ("ImportError: Install s3fs to access S3", "jobs/requirements.txt"),
        ("OSError: Unable to load libhdfs", "hdfs-native"),
        ("FileNotFoundError: The specified bucket does not exist.", "no such bucket"),
        ("PermissionError: Forbidden", "AWS_CONFIG_FILE"),
        ("botocore.exceptions.NoCredentialsError: Unable to locate credentials", "AWS_CONFIG_FILE"),
        (f"botocore.exceptions.{S3_NOBODY}", "Nobody answered"),
    ],
)
def test_data_that_no_input_names(last: str, advice: str) -> None:
    """The script finds out by itself, and is told the same."""
    tail = ("Traceback (most recent call last):", '  File "trips.py", line 3, in <module>', "    main()", last)
    failure = classify(Facts(ended_by="script", exit_code=1, log_tail=tail))
    assert failure is not None and failure.cls is USER
    assert advice in failure.advice


def yarn_start(detail: str, kind: str = "", **more: object) -> Facts:
    given: dict[str, object] = {"ended_by": "start", "launcher": "yarn", "detail": detail, "preflight_kind": kind}
    return Facts(**given | more)  # type: ignore[arg-type]


def yarn_loss(*exits: str) -> Facts:
    return Facts(
        ended_by="script",
        launcher="yarn",
        exit_code=1,
        log_tail=log("killed_worker_sigkill"),
        worker_exits=exits,
        worker_memory_limit=2 * GB,
        peaks=Peaks(worker_memory=1_900_000_000),
    )


KNOWN |= {
    "yarn file system": (
        yarn_start("fs.defaultFS is file:/// (/etc/hadoop/conf/core-site.xml): YARN needs a file system that driver "
                   "and nodes share, such as hdfs://, gs:// or s3a://", FailureClass.START_FAILED),
        FailureClass.START_FAILED, False, "file:///", "fs.defaultFS",
    ),
    "yarn client": (
        yarn_start("`yarn` is not on PATH: the launcher yarn needs a Hadoop client", FailureClass.START_FAILED),
        FailureClass.START_FAILED, False, "not on PATH", "no edge node yet",
    ),
    "yarn setuptools": (
        yarn_start("skein needs setuptools on Python 3.12 and later (it imports distutils)", "start failed"),
        FailureClass.START_FAILED, False, "needs setuptools", "mayfly[yarn]",
    ),
    "yarn down": (
        yarn_start(
            "YARN did not take the application: Failed to submit application, exception: Call From edge/10.0.0.1 to "
            "rm:8032 failed on connection exception: java.net.ConnectException: Connection refused",
            FailureClass.START_FAILED,
        ),
        FailureClass.START_FAILED, True, "rm:8032", "HADOOP_CONF_DIR",
    ),
    "yarn environment": (
        yarn_start(
            "application_1763715322000_0007 ended at once: Application application_1763715322000_0007 failed 1 times "
            "due to AM Container exited with exitCode: -1000 Failing this attempt.Diagnostics: java.io.IOException: "
            "Not in GZIP format: not in gzip format",
            FailureClass.START_FAILED,
        ),
        FailureClass.START_FAILED, True, "not in gzip format", "brings it anew",
    ),
    "yarn environment in the store": (
        yarn_start(
            "the environment file:///staging/envs/0123.tar.gz is damaged: its checksum is 00, it was built with ff. "
            "Remove it with `mayfly env rm` and clear the run to plan anew",
            FailureClass.START_FAILED,
        ),
        FailureClass.START_FAILED, False, "is damaged", "mayfly env build",
    ),
    "yarn disk": (
        yarn_start("3 containers ended before a worker was ready; the last one said: OSError: [Errno 28] No space left "
                   "on device", FailureClass.START_FAILED),
        FailureClass.START_FAILED, True, "No space left", "local-dirs",
    ),
    "yarn queue": (
        yarn_start("queue 'fast' does not exist; queues: background, batch, interactive", FailureClass.QUOTA),
        FailureClass.QUOTA, False, "queues: background", "cluster.yarn",
    ),
    "yarn queue, by YARN": (
        yarn_start("YARN did not take the application: Failed to submit application_1 to YARN : Application "
                   "application_1 submitted by user root to unknown queue: fast", FailureClass.START_FAILED),
        FailureClass.QUOTA, False, "unknown queue: fast", "cluster.yarn",
    ),
    "yarn size": (
        yarn_start("a worker of 20 GiB does not fit: largest container 14 GiB", FailureClass.QUOTA),
        FailureClass.QUOTA, False, "largest container 14 GiB", "cluster.worker",
    ),
    "yarn permission": (
        yarn_start("user 'ann' is not allowed to submit to queue 'batch'", FailureClass.PERMISSION),
        FailureClass.PERMISSION, False, "is not allowed", "Kerberos",
    ),
    "yarn refused by the ResourceManager": (
        yarn_start("the ResourceManager refuses GET /ws/v1/cluster/scheduler to user 'ann': not an admin",
                   FailureClass.QUOTA),
        FailureClass.PERMISSION, False, "to user 'ann'", "who runs the cluster",
    ),
    "yarn Kerberos": (
        yarn_start("the cluster demands Kerberos (hadoop.security.authentication in /etc/hadoop/conf/core-site.xml); "
                   "Mayfly's launcher yarn does not speak it yet", FailureClass.PERMISSION),
        FailureClass.PERMISSION, False, "demands Kerberos", "not supported yet",
    ),
    "yarn no configuration": (
        yarn_start("no yarn-site.xml in /etc/hadoop/conf: set HADOOP_CONF_DIR to the folder with the cluster's "
                   "configuration, on the driver's machine", FailureClass.QUOTA),
        FailureClass.START_FAILED, False, "no yarn-site.xml", "no edge node yet",
    ),
    "yarn silent": (
        yarn_start("the ResourceManager does not answer (http://rm:8088: [Errno 111] Connection refused): nothing was "
                   "started", FailureClass.START_FAILED),
        FailureClass.START_FAILED, True, "http://rm:8088", "did not answer",
    ),
    "yarn silent while waiting": (
        yarn_start("not ready after 300 s (phase start Dask)", limit_s=300,
                   waiting="0 of 2 workers; the ResourceManager does not answer"),
        FailureClass.START_FAILED, True, "not ready after 300 s", "did not answer",
    ),
    "yarn no nodes": (
        yarn_start("no node is running: YARN has 2 nodes, 2 lost: nothing was started", FailureClass.START_FAILED),
        FailureClass.STOCKOUT, True, "2 lost", "no room for the fewest workers",
    ),
    "yarn user limit": (
        yarn_start("not ready after 300 s (phase start Dask)", limit_s=300,
                   waiting="1 of 4 workers; user ann at the limit of queue batch (6 GB / 3 cores); pending 3 x 2 GB"),
        FailureClass.QUOTA, True, "user ann at the limit", "left no room for 5m",
    ),
    "yarn masters' limit": (
        yarn_start("not ready after 300 s (phase start Dask)", limit_s=300,
                   waiting="0 of 4 workers; queue root.batch at its AM limit of application masters"),
        FailureClass.QUOTA, True, "AM limit", "another queue",
    ),
    "yarn others use it": (
        yarn_start("not ready after 300 s (phase start Dask)", limit_s=300,
                   waiting="0 of 4 workers; cluster 97% full, most of it by queue background; the most free on one "
                   "node is 700 MB / 1 cores; pending 4 x 2 GB"),
        FailureClass.STOCKOUT, True, "97% full", "Lower `min`",
    ),
    "yarn workers do not get up": (
        yarn_start("not ready after 300 s (phase start Dask)", limit_s=300, waiting="0 of 2 workers; 2 starting"),
        FailureClass.START_FAILED, True, "2 starting", "yarn logs",
    ),
    "yarn network": (
        yarn_start("application_1 runs, but its application master has not reached this machine at 10.0.0.1:8790 "
                   "within 20 s", FailureClass.NETWORK),
        FailureClass.NETWORK, False, "10.0.0.1:8790", "yarn.ports",
    ),
    "yarn versions": (
        yarn_start("worker 3: Python 3.12 on node-7, the driver has 3.11", FailureClass.VERSION_MISMATCH),
        FailureClass.VERSION_MISMATCH, False, "3.12 on node-7", "mayfly env build",
    ),
    "yarn master preempted": (
        yarn_start("application_1 ended at once: AM Container exited with exitCode: -102: Container preempted by "
                   "scheduler", FailureClass.START_FAILED),
        FailureClass.PREEMPTED, True, "preempted by scheduler", "guaranteed",
    ),
    "yarn master lost": (
        yarn_start("the application master died a second time (application_2: AM Container exited with exitCode: 137)",
                   FailureClass.WORKER_LOST, phase="run", exit_code=-15),
        FailureClass.WORKER_LOST, True, "a second time", "ended twice",
    ),
    "yarn queue full": (
        yarn_start("not ready after 300 s (phase start Dask)", limit_s=300,
                   waiting="0 of 8 workers; queue batch at its maximum 50 %; pending 8 x 14 GB"),
        FailureClass.QUOTA, True, "queue batch at its maximum 50 %", "left no room for 5m",
    ),
    "yarn full": (
        yarn_start("not ready after 300 s (phase start Dask)", limit_s=300,
                   waiting="1 of 2 workers; pending 1 x 14 GB; the largest free node has 3 GB"),
        FailureClass.STOCKOUT, True, "pending 1 x 14 GB", "no room for the fewest workers within 5m",
    ),
    "yarn did not start": (
        yarn_start("3 containers ended before a worker was ready; the last one said: Exception from container-launch.",
                   FailureClass.START_FAILED),
        FailureClass.START_FAILED, True, "container-launch", "yarn logs",
    ),
    "yarn memory": (
        yarn_loss("worker 3 (container_1_0001_01_000004 on node-7): killed for its memory, exit code -104: [pid=77,"
                  "containerID=container_1_0001_01_000004] is running 1093631B beyond the 'PHYSICAL' memory limit. "
                  "Current usage: 1.1 GB of 1 GB physical memory used; 3.0 GB of 2.1 GB virtual memory used."),
        WORKER_MEMORY, False, "1.1 GB of 1 GB physical memory used", "try 4 GB",
    ),
    "yarn memory, as the launcher says it": (
        yarn_loss("worker 1 was lost: killed for its memory (1.6 GB of 1 GB physical memory used)"),
        WORKER_MEMORY, False, "worker 1 was lost", "try 4 GB",
    ),
    "yarn virtual memory": (
        yarn_loss("worker 3: Container exited with exit code -103"),
        WORKER_MEMORY, False, "-103", "YARN counts all processes",
    ),
    "yarn disk in the run": (
        yarn_loss("worker 3: distributed.spill - OSError: [Errno 28] No space left on device"),
        FailureClass.WORKER_LOST, True, "No space left", "spills there",
    ),
    "yarn preempted": (
        yarn_loss("worker 3: Container preempted by scheduler", "worker 4: Container preempted by scheduler"),
        FailureClass.PREEMPTED, True, "preempted by scheduler", "none came again in time",
    ),
    "yarn killed": (
        yarn_loss("worker 3: Container killed on request. Exit code is 137"),
        FailureClass.WORKER_LOST, True, "137", "1.9 GB of 2 GB",
    ),
    "yarn killed, as the nanny says it": (
        yarn_loss("Worker process 8 was killed by signal 9",
                  "worker 3 was lost: ended by itself (Worker process 8 was killed by signal 9)"),
        FailureClass.WORKER_LOST, True, "killed by signal 9", "control groups, the kernel. The largest worker used",
    ),
    "yarn crash beside a kill": (
        yarn_loss("worker 3 was lost: ended by itself (Worker process 8 was killed by signal 9)",
                  "worker 4 was lost: ended by itself (Worker process 9 was killed by signal 11)"),
        FailureClass.WORKER_LOST, False, "signal 11", "faulthandler",
    ),
    "yarn memory budget": (
        yarn_loss("worker 3 was lost: killed for its memory (Worker tls://10.0.0.1:1 (pid=8) exceeded 95% memory "
                  "budget. Restarting...)"),
        WORKER_MEMORY, False, "memory budget", "try 4 GB",
    ),
    "yarn terminated": (
        yarn_loss("worker 3: [2026-11-21 10:00:00.000]Container exited with a non-zero exit code 143. "),
        FailureClass.WORKER_LOST, True, "143", "SIGTERM",
    ),
}  # fmt: skip


def test_the_words_of_yarn_mean_nothing_elsewhere() -> None:
    failure = classify(Facts(ended_by="start", detail="OSError: Connection refused; checksum", limit_s=300))
    assert failure is not None and failure.cls is FailureClass.START_FAILED
    assert "YARN" not in failure.advice


def test_what_the_launcher_knows_comes_before_the_words_it_used() -> None:
    failure = classify(yarn_start("node-7 said: No space left on device; checksum", FailureClass.VERSION_MISMATCH))
    assert failure is not None and failure.cls is FailureClass.VERSION_MISMATCH


@pytest.mark.parametrize("name", KNOWN)
def test_known_ends(name: str) -> None:
    facts, cls, retryable, evidence, advice = KNOWN[name]
    failure = classify(facts)
    assert failure is not None
    assert failure.cls is cls, failure.summary()
    assert failure.retryable is retryable
    assert evidence in "\n".join(failure.evidence)
    assert advice in failure.advice


@pytest.mark.parametrize(
    ("exits", "oom_kills", "cls", "retryable"),
    [
        (("Worker tcp://127.0.0.1:1 (pid=8) exceeded 95% memory budget. Restarting...",), 0, WORKER_MEMORY, False),
        (("Worker process 8 was killed by signal 9",), 1, WORKER_MEMORY, False),
        (("Worker process 8 was killed by signal 9",), 0, FailureClass.WORKER_LOST, True),
        (("Worker process 8 was killed by signal 15",), 0, FailureClass.WORKER_LOST, True),
        (("Worker process 8 was killed by unknown signal",), 0, FailureClass.WORKER_LOST, True),
        (("Worker process 8 was killed by signal 11",), 0, FailureClass.WORKER_LOST, False),
        (("Worker process 8 exited with status 1",), 0, FailureClass.WORKER_LOST, False),
        ((), 0, FailureClass.WORKER_LOST, True),
    ],
)
def test_killed_worker_by_how_the_workers_ended(
    exits: tuple[str, ...], oom_kills: int, cls: FailureClass, retryable: bool
) -> None:
    failure = script("killed_worker_sigkill", worker_exits=exits, oom_kills=oom_kills)
    assert (failure.cls, failure.retryable) == (cls, retryable)
    assert all(failure.evidence.count(line) == 1 for line in exits)
    assert any("KilledWorker" in line for line in failure.evidence)


def test_a_script_that_saw_the_scheduler_die_is_not_blamed_for_the_connection() -> None:
    assert script("scheduler_gone", host_exit=3).cls is FailureClass.SCHEDULER_DIED
    assert not script("scheduler_gone", host_exit=3).retryable
    assert script("scheduler_gone", host_exit=-9).retryable
    assert script("shutdown_early", host_exit=3).cls is FailureClass.SCHEDULER_DIED


def test_lost_workers_count_although_the_script_wraps_their_exception() -> None:
    wrapped = (
        *log("killed_worker_sigkill"),
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        '  File "/scratch/job/a.py", line 9, in <module>',
        '    raise PipelineError("step 3") from error',
        "PipelineError: step 3",
    )
    failure = classify(Facts(ended_by="script", exit_code=1, log_tail=wrapped))
    assert failure is not None
    assert (failure.cls, failure.retryable) == (FailureClass.WORKER_LOST, True)
    assert "PipelineError: step 3" in failure.evidence


def test_a_refused_connection_of_the_script_to_its_own_database_is_not_the_schedulers() -> None:
    tail = (
        "Traceback (most recent call last):",
        '  File "/scratch/job/a.py", line 9, in <module>',
        "    connection = connect(port=5432)",
        "ConnectionRefusedError: [Errno 111] Connection refused",
    )
    failure = classify(Facts(ended_by="script", exit_code=1, log_tail=tail))
    assert failure is not None
    assert failure.cls is USER


def test_a_users_own_error_stays_one_although_the_scheduler_went_down_with_it() -> None:
    assert script("key_error_in_script", host_exit=0).cls is USER


def test_evidence_of_lost_workers_is_short_and_said_once() -> None:
    exits = (
        "Restarting worker (status=Status.running)",
        "Worker tcp://x (pid=1) exceeded 95% memory budget. Restarting...",
    )
    failure = script(
        "killed_worker_sigkill", worker_exits=exits, host_log_tail=tuple(f"[scheduler] {e}" for e in exits)
    )
    assert failure.evidence[0] == exits[1]
    assert len([line for line in failure.evidence if "memory budget" in line]) == 1


def test_a_peak_that_was_measured_too_early_is_not_told() -> None:
    known = {"worker_exits": ("Worker tcp://x exceeded 95% memory budget. Restarting...",)}
    assert "largest used 1.9 GB" in script("killed_worker_memory", **known).advice
    assert "largest used" not in script("killed_worker_memory", peaks=Peaks(worker_memory=65_000_000), **known).advice


# ---------------------------------------------------------------- the driver died


def test_driver_died_after_a_status() -> None:
    status = Status(seq=9, at=Timestamp(0), phase=Phase.RUN, elapsed=75, workers=2, memory=3 * GB, script_memory=GB)
    failure = driver_died(status, ("reading", "\x1b[1mhalf way\x1b[0m"))
    assert failure.cls is FailureClass.DRIVER_DIED
    assert failure.retryable
    assert failure.evidence[0].startswith("last status: phase run, 1m 15s after the start, 2 workers, 3 GB in")
    assert failure.evidence[-1] == "half way"


def test_driver_died_before_any_status() -> None:
    failure = driver_died(None, ())
    assert failure.cls is FailureClass.DRIVER_DIED
    assert "never wrote a status" in failure.evidence[0]
    assert "`python`" in failure.advice


# ---------------------------------------------------------------- the table


def test_each_class_has_a_rule_or_is_the_clusters() -> None:
    of_clusters = {
        FailureClass.INIT_ACTION,
        FailureClass.CLUSTER_LOST,
    }  # no driver was there, or is any more, to say so
    assert {rule.cls for rule in RULES} == set(FailureClass) - of_clusters


@pytest.mark.parametrize(
    ("found", "cls"),
    [
        ("absent: not found in project p, region r", FailureClass.CLUSTER_LOST),
        ("error: ERROR, Instance x-m was preempted.", FailureClass.PREEMPTED),
    ],
)
def test_a_cluster_that_is_gone(found: str, cls: FailureClass) -> None:
    failure = cluster_lost("mayfly-x", found, ("half way",))
    assert (failure.cls, failure.retryable) == (cls, False)
    assert failure.evidence == (f"cluster mayfly-x: {found}", "half way")


def test_each_rule_has_a_name_of_its_own_and_a_reason() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.why for rule in RULES)


def test_each_rule_is_reached() -> None:
    """No rule stands in the shadow of another."""
    from mayfly.failures.reading import Reading

    facts = [known[0] for known in KNOWN.values()]
    facts += [Facts(ended_by="script", exit_code=EXIT_CODES[name], log_tail=log(name)) for name in REAL]
    facts.append(
        replace(facts[-1], log_tail=log("killed_worker_exit"), exit_code=1, worker_exits=("exited with status 1",))
    )
    readings = [Reading(facts=item, traceback=last_traceback(item.log_tail)) for item in facts]
    reached = {next(rule.name for rule in RULES if rule.match(reading)) for reading in readings}
    assert reached == {rule.name for rule in RULES}


LINES = st.lists(
    st.one_of(
        st.text(max_size=400),
        st.sampled_from([line for name in REAL for line in log(name)]),
        st.just("Traceback (most recent call last):"),
        st.just('  File "a.py", line 1, in f'),
    ),
    max_size=60,
).map(tuple)
ENDS = st.sampled_from(
    [
        *("script", "timeout", "stalled", "cancelled", "carrier", "expired", "lease", "closing"),
        *("start", "preflight", "host", "script_memory", "gone", "x"),
    ]
)


@given(
    facts=st.builds(
        Facts,
        ended_by=ENDS,
        exit_code=st.none() | st.integers(-70, 300),
        log_tail=LINES,
        host_log_tail=LINES,
        host_exit=st.none() | st.integers(-70, 300),
        worker_exits=LINES,
        preflight_error=st.text(max_size=2000),
        preflight_kind=st.sampled_from(["", "input", "output", "version", "script", "odd"]),
        limit_s=st.floats(0, 1e7),
        oom_kills=st.integers(0, 3),
        detail=st.text(max_size=3000),
    )
)
def test_whatever_the_facts_the_answer_is_bounded_and_printable(facts: Facts) -> None:
    failure = classify(facts)
    if failure is None:
        assert (facts.ended_by, facts.exit_code) == ("script", 0)
        return
    assert failure.advice
    assert len(failure.advice) < 1500
    assert len(failure.evidence) <= MAX_LINES
    for line in failure.evidence:
        assert len(line) <= MAX_CHARS
        assert not any(ord(char) < 32 or ord(char) == 127 for char in line)


def test_signals_have_names() -> None:
    assert signal_name(11) == "SIGSEGV (segmentation fault)"
    assert signal_name(10) == "SIGUSR1"
    assert signal_name(63) == "signal 63"


def test_the_driver_may_import_it() -> None:
    """The supervisor has the standard library only."""
    code = (
        "import sys; before = set(sys.modules); import mayfly.failures.classify; "
        "print(sorted(name.split('.')[0] for name in set(sys.modules) - before "
        "if name.split('.')[0] not in sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, env=_environment())
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.replace("'", '"'))) == {"mayfly"}


def _environment() -> dict[str, str]:
    import mayfly

    return {"PYTHONPATH": str(Path(mayfly.__file__).parents[1])}
