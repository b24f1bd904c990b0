#!/usr/bin/env bash
# Everything that can be said about the code without running it. All checks run; one failure fails the whole.
# usage: scripts/check.sh VENV
set -uo pipefail

bin=$1/bin
failed=()

check() {  # check NAME COMMAND...
    local name=$1
    shift
    if "$@"; then echo "ok     $name"; else echo "FAILED $name"; failed+=("$name"); fi
}

mapfile -t shell < <(git ls-files '*.sh' .ci/run init_actions | while read -r file; do
    if [[ $file == *.sh || $(head -c 64 "$file") == '#!'*sh* ]]; then echo "$file"; fi
done | sort -u)

check "ruff check" "$bin/ruff" check --quiet --output-format concise .
check "ruff format" "$bin/ruff" format --check --quiet --output-format concise .
check "mypy --strict" "$bin/mypy" --no-error-summary
check "shellcheck (${#shell[@]} files)" "$bin/shellcheck" "${shell[@]}"

if ((${#failed[@]})); then
    printf 'check: %d of 4 failed: %s\n' "${#failed[@]}" "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
