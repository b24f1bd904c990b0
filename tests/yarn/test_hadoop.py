"""The Hadoop the other tests stand on: it starts, is what was asked for, can be hurt and healed, and leaves nothing."""

from __future__ import annotations

from scripts.hadoop import Hadoop


def test_two_nodes_and_hdfs(hadoop: Hadoop) -> None:
    assert hadoop.node_states() == {1: "RUNNING", 2: "RUNNING"}
    hadoop.command("hdfs", "dfs", "-mkdir", "-p", "/probe")
    assert "/probe" in hadoop.command("hdfs", "dfs", "-ls", "/")
