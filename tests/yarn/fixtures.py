"""The Hadoop of a test session, for all test folders (a plugin, named in tests/conftest.py).

TEST_HADOOP chooses its version (`make test-hadoop HADOOP=3.3.6`). Whoever kills or removes a part of it brings it back
before the test ends: `hadoop.heal()`, which the fixture also calls after each test that used it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from scripts.hadoop import DEFAULT_VERSION, Hadoop, missing

VERSION = os.environ.get("TEST_HADOOP") or DEFAULT_VERSION
NODE_EXPIRY = 300.0
"""Seconds: a node that gets no processor for a while is not lost, with its containers, but in the test about that."""
GRACE = 300.0
"""Seconds: nor does a driver lose its application then, but in the tests about drivers that are gone."""


@pytest.fixture(scope="session")
def hadoop_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hadoop]:
    """One Hadoop for all tests: CapacityScheduler, HDFS, two nodes. Use `hadoop`."""
    if why := missing(VERSION):
        pytest.skip(why)
    with Hadoop(tmp_path_factory.mktemp("hadoop"), VERSION, node_expiry=NODE_EXPIRY) as cluster:
        yield cluster


@pytest.fixture
def hadoop(hadoop_session: Hadoop) -> Iterator[Hadoop]:
    """A Hadoop on which everything runs; whole again after the test, its applications ended."""
    yield hadoop_session
    hadoop_session.heal()


@pytest.fixture
def hadoop_env(hadoop: Hadoop, monkeypatch: pytest.MonkeyPatch) -> Hadoop:
    """The same, and this process and its children are its clients."""
    for name, value in hadoop.env.items():
        monkeypatch.setenv(name, value)
    return hadoop
