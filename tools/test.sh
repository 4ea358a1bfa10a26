#!/usr/bin/env bash
# Everything that CI checks: lint, format, types, tests. Arguments go to pytest. Exit 0 only if all of them pass.
# RAZORDEPLOY_VENV: the virtual environment to use (default: .venv of this repository). PYTHON: the python to make it with.
# --detection: the tests of detectors instead, in the environment that tools/detection_env.sh makes.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [ "${1:-}" = --detection ]; then
    shift
    bash "$repository/tools/detection_env.sh"
    cd "$repository"
    export RAZORDEPLOY_REQUIRE=openvino,onnxruntime,mmdet PYTHONPATH=$repository
    exec "${RAZORDEPLOY_DETECTION_VENV:-$repository/.venv-detection}/bin/python" -m pytest tests/detection "$@"
fi

install all,dev
cd "$repository"
# An engine that is missing is a failure here, not a skip.
export RAZORDEPLOY_REQUIRE=${RAZORDEPLOY_REQUIRE:-openvino,onnxruntime,torch_native,mmcls,optuna,ray,submitit}

output=$(mktemp)
trap 'rm -f "$output"' EXIT
failed=0

# step NAME COMMAND...: one line when it passes, its whole output when it does not.
step() {
    local name=$1 start=$SECONDS
    shift
    if "$@" >"$output" 2>&1; then
        printf '%-12s ok, %d s\n' "$name" $((SECONDS - start))
    else
        cat "$output"
        printf '%-12s FAILED, %d s: %s\n' "$name" $((SECONDS - start)) "$*"
        failed=1
    fi
}

step "ruff check" "$venv/bin/python" -m ruff check --output-format concise .
step "ruff format" "$venv/bin/python" -m ruff format --check .
step "mypy" "$venv/bin/python" -m mypy

# yapf, which mmengine imports, caches its grammar on first use; two workers that do so at once read half a file.
"$venv/bin/python" -W ignore -c 'import mmengine'

say "pytest       running"
start=$SECONDS
if "$venv/bin/python" -m pytest -n 2 --dist loadfile "$@" 2>&1 | tee "$output"; then
    result=ok
else
    result=FAILED
    failed=1
fi
printf '%-12s %s, %d s\n' pytest "$result" $((SECONDS - start))
[ "$failed" = 0 ] && say "all checks passed" || say "some checks FAILED"
grep -E '(passed|failed|error|no tests ran).* in [0-9.]+s' "$output" | tail -n 1
exit "$failed"
