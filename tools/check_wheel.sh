#!/usr/bin/env bash
# Installs the wheel into an empty environment, one extra at a time, and makes an engine with it.
# Arguments: the extras to try (default: every backend). Takes about a minute and 2 GB of temporary disk an extra.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=$(find_python)
"$python" -m venv "$folder/build"
"$folder/build/bin/python" -m pip wheel -qq --no-deps --wheel-dir "$folder" "$repository"
wheel=$(ls "$folder"/razordeploy-*.whl)
say "built ${wheel##*/}"

[ $# -gt 0 ] || set -- openvino onnxruntime torch_native academic
cd "$folder"
failed=0
for extra in "$@"; do
    "$python" -m venv "$folder/$extra"
    "$folder/$extra/bin/python" -m pip install -qq -c "$repository/requirements/constraints.txt" "$wheel[$extra,data]"
    export PATH="$folder/$extra/bin:$PATH"
    razordeploy backends
    [ -f work_dirs/digits_resnet8/float.pth ] || razordeploy train ptq/digits_resnet8.py
    if razordeploy ptq ptq/digits_resnet8.py --backend "$extra" --benchmark-seconds 0; then
        say "extra '$extra': ok"
    else
        say "extra '$extra': FAILED"
        failed=1
    fi
    rm -rf "${folder:?}/$extra"
done
exit "$failed"
