#!/usr/bin/env bash
# PID 1 of a farm: see namespaces.py. It lives as long as its standard input, and bash reaps what loses its parent.
set -eu
mount -t proc proc /proc
ip -batch - <<END
link set lo up
link add br0 type bridge
addr add $GATEWAY/16 dev br0
addr add $METADATA/32 dev br0
link set br0 up
END
echo ready
exec >/dev/null
while read -r _; do :; done
