#!/usr/bin/env bash
# Removes what make and runs have made in this clone. Refuses while a local cluster is alive: its run directory is the
# proof of what became of it. FORCE=1 removes all the same.
set -euo pipefail
cd "$(dirname "$0")/.."

mayfly=.venv/bin/mayfly
if [[ ! -x $mayfly ]]; then mayfly=.venv-3.1.8/bin/mayfly; fi
if [[ -d .mayfly && -x $mayfly && ${FORCE:-} != 1 ]]; then
    alive=$("$mayfly" ls --json | grep -E '"cluster": "(creating|running|error|deleting)"|"state": "(open|closing)"' |
        sed -E 's/.*"run": "([^"]*)".*/\1/' || true)
    if [[ -n $alive ]]; then
        echo "error: these runs are not closed: $(echo "$alive" | xargs)" >&2
        echo "End them first: $mayfly delete $(echo "$alive" | xargs)   (or: make clean FORCE=1)" >&2
        exit 1
    fi
fi

if [[ -d .cloud ]]; then PYTHONDONTWRITEBYTECODE=1 python3 -m scripts.cloud down; fi
if [[ -d .hadoop ]]; then PYTHONDONTWRITEBYTECODE=1 python3 -m scripts.hadoop down; fi
rm -rf .venv .venv-3.1.8 .airflow .mayfly data .pytest_cache .mypy_cache .ruff_cache .hypothesis dist plugins/*.egg-info
find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
echo "clean; the secrets of docker-compose.yaml (.env) and ~/.local/state/mayfly were left alone"
