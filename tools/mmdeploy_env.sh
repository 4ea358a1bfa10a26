#!/usr/bin/env bash
# mmdeploy_env.sh VERSION [DIRECTORY]: an environment with mmdeploy 1.0.0 (and mmcls) or 1.3.1 (and mmpretrain), this
# checkout, and the CPU engines. mmdeploy pins an onnx with open CVEs: it goes in without its requirements.
# Default directory: .venv-mmdeploy-VERSION. The tests in tests/integrations/mmdeploy run there:
#   .venv-mmdeploy-1.3.1/bin/python -m pytest tests/integrations/mmdeploy
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

case ${1:-} in
    1.0.0) codebase=(mmcls==1.0.0rc6 mmcv-lite==2.0.1) ;;
    1.3.1) codebase=(mmpretrain==1.2.0 mmcv-lite==2.2.0) ;;
    *) fail "expected 1.0.0 or 1.3.1, got '${1:-}'" ;;
esac
version=$1
venv=${2:-$repository/.venv-mmdeploy-$version}
[ -x "$venv/bin/python" ] || "$(find_python)" -m venv "$venv"

constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
grep -vE '^(mmcls|mmcv-lite)==' "$repository/requirements/constraints.txt" >"$constraints"
pip() { "$venv/bin/python" -m pip -q --disable-pip-version-check "$@"; }

say "environment: installing mmdeploy $version and ${codebase[*]} into $venv"
pip install -c "$constraints" "setuptools<82" wheel torch
pip install -c "$constraints" -e "$repository[openvino,onnxruntime,data]" pytest pytest-timeout \
    "${codebase[@]}" aenum multiprocess prettytable terminaltables h5py tqdm grpcio six
pip install --no-deps "mmdeploy==$version"
if [ "$version" = 1.3.1 ]; then
    pip install --no-deps torchvision==0.28.0  # mmpretrain imports it
    # torchvision's wheel is made for CUDA: beside a CPU build of PyTorch two operators have to be declared first.
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cat >"$site/declare_torchvision.py" <<'PYTHON'
import importlib.abc
import sys


class Declare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if not torch.cuda.is_available():
                library = torch.library.Library("torchvision", "DEF")
                for operator in ("nms", "qnms"):
                    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                sys.modules[__name__].library = library
        return None


sys.meta_path.insert(0, Declare())
PYTHON
    echo "import declare_torchvision" >"$site/declare_torchvision.pth"
fi
"$venv/bin/python" -W ignore -c 'import mmengine, mmdeploy; print("mmdeploy", mmdeploy.__version__, "in", __import__("sys").prefix)'
