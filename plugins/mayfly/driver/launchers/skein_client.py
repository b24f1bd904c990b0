"""skein's Java process on this machine: started, with errors that say what is missing. It ends with this process."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from mayfly.contract import FailureClass
from mayfly.driver.launchers.base import LaunchError

JAVA_OPTIONS = ("-Xmx96m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:MaxMetaspaceSize=128m")
"""It submits, asks and sleeps; with these it has about 150 MB."""


def open_client(log: Path) -> Any:
    """A skein client with its own Java process, and credentials of this run alone. Blocking, some seconds. LaunchError
    says what to install or to set; `log` is where the Java process writes."""
    try:
        import skein
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing == "distutils":
            raise LaunchError(
                FailureClass.START_FAILED,
                "skein needs setuptools on Python 3.12 and later (it imports distutils): add `setuptools` to the "
                "job's environment; `mayfly env build` does",
            ) from error
        raise LaunchError(
            FailureClass.START_FAILED,
            f"the launcher yarn needs skein ({missing} is not installed): install `mayfly[yarn]` where the driver "
            "runs, or build the job's environment with `mayfly env build`",
        ) from error
    security = skein.Security.new_credentials()
    try:
        return skein.Client(security=security, log=str(log), log_level="WARN", java_options=list(JAVA_OPTIONS))
    except FileNotFoundError as error:
        program = str(error.filename)
        what = "`yarn` is not on PATH" if program == "yarn" else f"{program} is not there"
        raise LaunchError(
            FailureClass.START_FAILED,
            f"{what}: the launcher yarn needs a Hadoop client and a JDK or JRE on the driver's machine; `yarn "
            "classpath` must work there, and JAVA_HOME or PATH must lead to java",
        ) from error
    except subprocess.CalledProcessError as error:
        raise LaunchError(
            FailureClass.START_FAILED,
            f"`yarn classpath --glob` failed with exit code {error.returncode}: run it by hand as the driver's user",
        ) from error
    except Exception as error:
        raise LaunchError(
            FailureClass.START_FAILED, f"skein's Java process did not start ({error}){tail_of(log)}"
        ) from error


def tail_of(log: Path, lines: int = 12) -> str:
    """ ": its last words" of a log, empty when it has none."""
    try:
        text = log.read_text(errors="replace").strip()
    except OSError:
        return ""
    return ":\n" + "\n".join(text.splitlines()[-lines:]) if text else ""
