#!/usr/bin/env bash
# Renews the lock files from the ranges beside them. Versions that are locked already stay unless --upgrade or
# --upgrade-package NAME is given.   usage: requirements/lock.sh [options of "uv pip compile"]
set -euo pipefail
cd "$(dirname "$0")"
lanes=(3.3.2 3.1.8)

compile() {  # compile OUTPUT [options...]; further requirements come from standard input
    local output=$1
    shift
    echo "lock: $output"
    # No index address: the lock must mean the same on every machine, behind every mirror.
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
        --custom-compile-command "make lock" --output-file "$output" "$@" >/dev/null
}

compile bootstrap.lock bootstrap.txt "$@"
for lane in "${lanes[@]}"; do
    echo "apache-airflow==$lane" | compile "airflow-$lane.lock" dev.txt - --overrides leave-out.txt "$@"
done
# The image runs what the newest lane was tested with.
compile compose.lock compose.txt --constraints "airflow-${lanes[0]}.lock" "$@"
