#!/usr/bin/env bash
# Builds the wheel without a network and from a copy, so that neither an old build/ gets into it nor anything is left
# in the clone.   usage: scripts/wheel.sh VENV FOLDER
set -euo pipefail

venv=$1 folder=$2
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

cp pyproject.toml requirements.txt README.md "$copy/"
mkdir -p "$copy/plugins" "$copy/requirements" "$folder"
cp requirements/yarn.txt "$copy/requirements/"
cp -R plugins/mayfly "$copy/plugins/"
mkdir "$copy/plugins/mayfly/init_actions"  # what nodes of a cloud start with, see nodefiles.py
cp init_actions/*.sh init_actions/*.py "$copy/plugins/mayfly/init_actions/"
find "$copy" -name __pycache__ -type d -prune -exec rm -rf {} +
# The times in the archive are those of the last commit: the same sources give the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 315532800)
export SOURCE_DATE_EPOCH
"$venv/bin/python" -m pip --disable-pip-version-check wheel --quiet --no-index --no-deps --no-build-isolation \
    --wheel-dir "$folder" "$copy"
ls "$folder"/mayfly-*.whl
