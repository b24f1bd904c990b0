"""The commands `yarn` and `hdfs`, as far as they are needed on a client. skein runs `yarn classpath --glob`."""

from __future__ import annotations

from collections.abc import Sequence

_MAINS = {
    "yarn": {
        "application": "org.apache.hadoop.yarn.client.cli.ApplicationCLI",
        "logs": "org.apache.hadoop.yarn.client.cli.LogsCLI",
        "node": "org.apache.hadoop.yarn.client.cli.NodeCLI",
        "queue": "org.apache.hadoop.yarn.client.cli.QueueCLI",
        "rmadmin": "org.apache.hadoop.yarn.client.cli.RMAdminCLI",
    },
    "hdfs": {
        "dfs": "org.apache.hadoop.fs.FsShell",
        "dfsadmin": "org.apache.hadoop.hdfs.tools.DFSAdmin",
    },
}
NAMES = tuple(_MAINS)


def script(command: str, *, version: str, lib: str, conf: str, java_home: str, options: Sequence[str]) -> str:
    """The text of a command: `lib` is the folder of Hadoop's jars, `options` are the JVM's."""
    mains = _MAINS[command]
    lines = ["#!/usr/bin/env bash", "# Made by scripts/hadoop; goes with the cluster.", "set -euo pipefail"]
    lines += [f': "${{HADOOP_CONF_DIR:={conf}}}" "${{JAVA_HOME:={java_home}}}"']
    lines += ["export HADOOP_CONF_DIR JAVA_HOME", f'classpath="$HADOOP_CONF_DIR:{lib}/*"', 'case "${1:-}" in']
    # As Hadoop's own: `--glob` names each jar, for those (libhdfs) to whom a star means nothing.
    lines += ["    classpath)", '        if [ "${2:-}" = --glob ]; then']
    lines += [f'            printf -v classpath "%s:" "$HADOOP_CONF_DIR" "{lib}"/*.jar', "        fi"]
    lines += ['        echo "${classpath%:}"; exit;;', f"    version) echo 'Hadoop {version}'; exit;;"]
    lines += [f"    {name}) main={main};;" for name, main in mains.items()]
    known = " | ".join(["classpath", "version", *mains])
    lines += [f'    *) echo "usage: {command} {known} ..." >&2; exit 2;;', "esac", "shift"]
    lines += [f'exec "$JAVA_HOME/bin/java" {" ".join(options)} -cp "$classpath" "$main" "$@"', ""]
    return "\n".join(lines)
