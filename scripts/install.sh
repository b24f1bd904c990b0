#!/usr/bin/env bash
# Makes or updates the environment of one lane, exactly as its lock file says.   usage: scripts/install.sh VENV LOCK
# PYTHON names the interpreter (default python3.11). Safe to run twice, also at the same time.
set -euo pipefail

venv=$1 lock=$2
python=${PYTHON:-python3.11}

die() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || die \
    "there is no working '$python'. Mayfly is tested with Python 3.11." \
    "Install it (Debian/Ubuntu: apt install python3.11 python3.11-venv; macOS: brew install python@3.11;" \
    "anywhere: uv python install 3.11), or name it: make PYTHON=/path/to/python3.11 ..."
[[ $found == 3.11 ]] || die "'$python' is Python $found; the lock files are made for Python 3.11." \
    "Name another one: make PYTHON=/path/to/python3.11 ..."
"$python" -c 'import venv, ensurepip' 2>/dev/null || die "'$python' cannot make virtual environments." \
    "Debian/Ubuntu: apt install python3.11-venv"

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    echo "install: new environment $venv"
    "$python" -m venv "$venv"
fi

# uv does not read pip's settings; a mirror that pip was told of should serve here, too.
if [[ -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} ]]; then
    index=${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
    if [[ -n $index ]]; then export UV_DEFAULT_INDEX=$index; fi
fi

want=$(grep -oE '^uv==[^ ;]+' requirements/bootstrap.lock)
if [[ "uv==$("$venv/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$want" ]]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
fi

export VIRTUAL_ENV=$PWD/$venv UV_PYTHON_DOWNLOADS=never
echo "install: $lock -> $venv"
# Compiling takes some 10 s once and saves 2 s in every process that imports Airflow.
# Without build isolation the builds use the hashed setuptools from above instead of whatever is newest today.
"$venv/bin/uv" pip sync --quiet --require-hashes --no-build-isolation --compile-bytecode "$lock"
"$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
