#!/usr/bin/env bash
# Makes, once, the environment of detectors: mmdet 3.3 on mmcv 2.1 with its operators, which are compiled here because
# there is no wheel for current PyTorch. About half an hour on two cores; needs a C++ compiler and the Python headers.
# RAZORDEPLOY_DETECTION_VENV: where (default: .venv-detection of this repository). PYTHON: the python to make it with.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
venv=${RAZORDEPLOY_DETECTION_VENV:-$repository/.venv-detection}

works() { "$venv/bin/python" -W ignore -c 'import mmcv.ops, mmdet.models, openvino, onnxruntime, pytest' 2>/dev/null; }

if works; then
    say "environment: $venv is up to date"
    exit
fi
command -v c++ >/dev/null || fail "no C++ compiler (c++) for mmcv's operators; on Debian and Ubuntu: apt install build-essential"
if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    python=$(find_python) || exit $?
    say "environment: making $venv ($("$python" -V))"
    "$python" -m venv "$venv" || fail "no virtual environment at $venv; on Debian and Ubuntu: apt install python3-venv"
fi

pip() { "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

# mmcls' mmcv is another one.
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
grep -Ev '^(mmcls|mmcv-lite|opencv-python|model-index|modelindex|nncf)==' "$repository/requirements/constraints.txt" >"$pins"
torch=$(grep -m 1 '^torch==' "$pins")

say "environment: PyTorch and what builds"
pip "$torch" 'setuptools<82' wheel ninja psutil numpy || fail "pip could not install $torch; what it said is above"
if ! "$venv/bin/python" -W ignore -c 'import mmcv.ops' 2>/dev/null; then
    say "environment: compiling mmcv's operators (about half an hour)"
    MMCV_WITH_OPS=1 FORCE_CUDA=0 pip --no-build-isolation --no-binary mmcv mmcv==2.1.0 ||
        fail "mmcv 2.1.0 could not be built; what the compiler said is above"
fi
say "environment: mmdet, razordeploy and its engines"
pip -c "$pins" mmdet==3.3.0 "$torch" 'setuptools<82' || fail "pip could not install mmdet 3.3.0; what it said is above"
pip -c "$pins" -e "$repository[openvino,onnxruntime,data]" pytest pytest-timeout pytest-xdist ||
    fail "pip could not install razordeploy; what it said is above"
works || fail "$venv was made, but mmdet does not import: $("$venv/bin/python" -W ignore -c 'import mmcv.ops, mmdet.models' 2>&1 | tail -n 1)"
say "environment: $venv is ready; bash tools/test.sh --detection runs its tests"
