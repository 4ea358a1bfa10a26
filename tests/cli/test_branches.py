"""Recipes of models with branches for training only: merged by ``ptq``, and as their own method has it by ``qat``."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import TINY

NET = """
class Branches(nn.Module):
    deploy = False

    def __init__(self, switches):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        if switches:
            self.switch_to_deploy = self.switch

    def forward(self, x):
        return self.a(x) if self.deploy else self.a(x) + self.b(x)

    def switch(self):
        with torch.no_grad():
            self.a.weight[:, :, 1:2, 1:2] += self.b.weight
            self.a.bias += self.b.bias
        self.deploy = True
        del self.b


def branched(switches):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), Branches(switches),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4),
    )
"""


@pytest.mark.parametrize("switches", [True, False], ids=["its method", "no method"])
@pytest.mark.parametrize("verb", ["ptq", "qat"])
def test_branches_of_a_recipe(cli, tiny, tmp_path, verb, switches):
    model = {"type": "tiny:branched", "switches": switches}
    recipe = tiny(model=model, qat={"epochs": 1, "batch_size": 32, "lr": 0.01, "threads": 1})
    (tmp_path / "tiny.py").write_text(TINY + NET)
    run = cli(verb, recipe, "--work-dir", "work", "--backend", "onnxruntime", "--benchmark-seconds", "0")
    assert run.code == 0, run.err
    entry = json.loads((tmp_path / "work" / "report.json").read_text())["backends"]["onnxruntime"]
    merged = switches or verb == "ptq"
    convolutions = [op["module"] for op in entry["ops"] if op["op"] == "conv2d"]
    last = {("ptq", True): ["2"], ("qat", True): ["2.a"]}.get((verb, merged), ["2.a", "2.b"])
    assert convolutions == ["0", *last]
    again = cli("evaluate", "work", env={"COLUMNS": "200"})
    assert again.code == 0, again.err
    assert again.err == "", "the model is captured as it was for the engine"
    row = next(line.split() for line in again.out.splitlines() if "onnxruntime" in line)
    assert row[1:4] == [f"{entry['metrics'][side]['top1']:.2f}" for side in ("float", "simulated", "engine")]
