#!/usr/bin/env bash
# The main job on data that comes with scikit-learn: train a small CNN, quantize it for two engines, measure both.
# RAZORDEPLOY_VENV: the virtual environment to use (default: .venv of this repository). PYTHON: the python to make it with.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

recipe=recipes/ptq/digits_resnet8.py
work_dir=work_dirs/digits_resnet8

install openvino,onnxruntime,demo
cd "$repository"

if [ -f "$work_dir/float.pth" ]; then
    say "1/2 float model: $work_dir/float.pth is there, not trained again"
else
    say "1/2 float model: razordeploy train $recipe"
    "$venv/bin/razordeploy" train "$recipe"
fi

say "2/2 int8 engines: razordeploy ptq $recipe --backend openvino,onnxruntime"
code=0
"$venv/bin/razordeploy" ptq "$recipe" --backend openvino,onnxruntime || code=$?
if [ -f "$work_dir/report.html" ] && [ "$code" -le 1 ]; then
    say "report: $repository/$work_dir/report.html"
    say "for the commands above: cd $repository && . $venv/bin/activate"
fi
exit "$code"
