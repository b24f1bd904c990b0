from __future__ import annotations

import os
from pathlib import Path

import pytest

from mayfly.driver.environment import base_environment, dask_settings, nested
from mayfly.driver.mayfly_worker import variables_of
from tests.driver.driving import make_order


def test_dotted_and_nested_settings_are_one() -> None:
    assert nested({"a.b.c": 1, "a": {"b.d": 2, "e": 3}, "f": [1]}) == {"a": {"b": {"c": 1, "d": 2}, "e": 3}, "f": [1]}


def test_the_last_of_two_equal_settings_wins() -> None:
    assert nested({"a.b": 1, "a": {"b": 2}}) == {"a": {"b": 2}}


def test_names_of_loggers_keep_their_dots() -> None:
    assert nested({"logging": {"distributed.worker": "info"}}) == {"logging": {"distributed.worker": "info"}}


def test_a_job_may_overrule_our_defaults_but_not_lose_the_others() -> None:
    settings = dask_settings(make_order(dask={"distributed.scheduler.no-workers-timeout": "5s"}))
    assert settings["distributed"]["scheduler"]["no-workers-timeout"] == "5s"
    assert settings["distributed"]["scheduler"]["dashboard"]["tasks"]["task-stream-length"] == 10_000


def test_who_names_hdfs_gets_what_its_client_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class path, of this node's own command: in the script, on the scheduler and on every worker."""
    command = tmp_path / "hdfs"
    command.write_text('#!/bin/sh\n[ "$*" = "classpath --glob" ] && echo "/etc/hadoop/conf:/lib/a.jar"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CLASSPATH", raising=False)
    where = {"job": tmp_path, "dask_config": tmp_path / "dask.yaml"}
    asks = make_order(inputs={"a": "hdfs://nn/data/*.csv"})
    assert base_environment(asks, **where, ambient=os.environ)["CLASSPATH"] == "/etc/hadoop/conf:/lib/a.jar"
    assert "CLASSPATH" not in base_environment(make_order(), **where, ambient=os.environ)
    given = base_environment(asks, **where, ambient={**os.environ, "CLASSPATH": "/mine"})
    assert given["CLASSPATH"] == "/mine"
    worker = variables_of({"env": {}, "hdfs_user": "root", "hdfs": {}}, str(tmp_path), str(tmp_path))
    assert (worker["CLASSPATH"], worker["HADOOP_USER_NAME"]) == ("/etc/hadoop/conf:/lib/a.jar", "root")
    assert "CLASSPATH" not in variables_of({"env": {}, "hdfs_user": ""}, str(tmp_path), str(tmp_path))
    native, java = tmp_path / "lib" / "native", tmp_path / "jdk" / "bin" / "java"
    for file in (native / "libhdfs.so", java):
        file.parent.mkdir(parents=True)
        file.touch(mode=0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(java)  # as Debian's alternatives
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    found = base_environment(asks, **where, ambient={"PATH": path, "HADOOP_HOME": str(tmp_path)})
    assert (found["ARROW_LIBHDFS_DIR"], found["JAVA_HOME"]) == (str(native), str(tmp_path / "jdk"))
    assert "-Xrs" in found["LIBHDFS_OPTS"], "or a JVM would take SIGTERM from Python"
    mine = {"ARROW_LIBHDFS_DIR": "/a", "JAVA_HOME": "/b", "LIBHDFS_OPTS": "-Xmx1g", "CLASSPATH": "/c"}
    assert base_environment(asks, **where, ambient={"PATH": path, **mine}).items() >= mine.items()
    command.unlink()
    container = {"env": {}, "hdfs_user": "root", "hdfs": {"CLASSPATH": str(java), "ARROW_LIBHDFS_DIR": "/not/here"}}
    worker = variables_of(container, str(tmp_path), str(tmp_path))
    assert worker["CLASSPATH"] == str(java), "it knows no command, but what the driver knows is here, too"
    assert worker.get("ARROW_LIBHDFS_DIR") != "/not/here"
    # A node without it: Arrow says what it misses
    assert "CLASSPATH" not in base_environment(asks, **where, ambient={"PATH": str(tmp_path)})
