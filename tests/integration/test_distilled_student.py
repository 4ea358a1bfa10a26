"""The shipped digits recipe: teacher, distilled student, two engines of the student, by the command line alone."""

from __future__ import annotations

import json

import pytest
import torch

from razordeploy.cli.main import main
from razordeploy.models.digits import resnet8

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
RECIPES = {
    "distill/digits/kd_resnet8.py": "digits_kd_resnet8",
    "distill/digits/fitnet_resnet8.py": "digits_fitnet_resnet8",
}


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_student_is_deployed_by_the_recipe_that_distilled_it(tmp_path, monkeypatch, recipe):
    monkeypatch.chdir(tmp_path)
    assert run("train", "ptq/digits_resnet8.py", "--set", "train.epochs=3") == 0
    assert run("train", recipe, "--set", "train.epochs=3") == 0
    state = torch.load(f"work_dirs/{RECIPES[recipe]}/student.pth", weights_only=True)
    resnet8(width=8).load_state_dict(state, strict=True)
    wanted = ["--set", "deploy.max_drop=3.0", "calibration.num_samples=64", "--benchmark-seconds", "0"]
    assert run("ptq", recipe, "--backend", "openvino,onnxruntime", *wanted, "--work-dir", "int8") == 0
    report = json.loads((tmp_path / "int8" / "report.json").read_text())
    for entry in report["backends"].values():
        assert entry["metrics"]["engine"]["top1"] > 60
        assert entry["coverage"]["int8"] == entry["coverage"]["planned"] > 0
