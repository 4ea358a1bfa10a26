"""DetNAS is SPOS on a detector."""

from __future__ import annotations

import torch
from mmengine.optim import OptimWrapper

from razordeploy.compress.nas.algorithms.spos import SPOS
from razordeploy.compress.nas.recalibrate import calibrated_subnet
from razordeploy.subnet.fix import load_fix_subnet
from tests.compress.nas.detector import Detector

SUBNET = """
backbone.layers.0.0:
  chosen: shuffle_5x5
backbone.layers.0.1:
  chosen: shuffle_3x3
backbone.layers.1.0:
  chosen: shuffle_xception
backbone.layers.2.0:
  chosen: shuffle_3x3
"""


def _data():
    torch.manual_seed(0)
    samples = {"labels": torch.tensor([0, 1]), "boxes": torch.rand(2, 4)}
    return {"inputs": torch.randn(2, 3, 48, 48), "data_samples": samples}


def test_a_detector_is_trained_one_path_a_step():
    torch.manual_seed(0)
    algorithm = SPOS(architecture=Detector())
    assert len(algorithm.mutator.search_groups) == 4
    wrapper = OptimWrapper(torch.optim.SGD(algorithm.architecture.parameters(), lr=0.05))
    losses = []
    for _ in range(12):
        before = {key: value.detach().clone() for key, value in algorithm.architecture.named_parameters()}
        losses.append(float(algorithm.train_step(_data(), wrapper)["loss"].detach()))
        chosen = algorithm.mutator.current_choices
        moved = {key for key, value in algorithm.architecture.named_parameters() if not torch.equal(value, before[key])}
        for key in moved:
            if "_candidates" in key:
                group, _, rest = key.partition("._candidates.")
                assert rest.partition(".")[0] == chosen[group]
        assert any(key.startswith("neck") for key in moved)
    assert losses[-1] < losses[0]


def test_the_published_format_fixes_the_backbone(tmp_path):
    torch.manual_seed(0)
    algorithm = SPOS(architecture=Detector())
    (tmp_path / "DETNAS_SUBNET.yaml").write_text(SUBNET)
    fixed = load_fix_subnet(Detector(), tmp_path / "DETNAS_SUBNET.yaml")
    algorithm.mutator.set_choices({key: next(iter(m._candidates)) for key, m in _choices(fixed)})
    subnet, static = calibrated_subnet(algorithm.architecture, [_data()["inputs"]])
    assert {key: value["chosen"] for key, value in subnet.items()} == {
        "backbone.layers.0.0": "shuffle_5x5",
        "backbone.layers.0.1": "shuffle_3x3",
        "backbone.layers.1.0": "shuffle_xception",
        "backbone.layers.2.0": "shuffle_3x3",
    }
    fixed.load_state_dict(static.state_dict(), strict=True)
    x = _data()["inputs"]
    for ours, theirs in zip(fixed.eval()(x)[0], static(x)[0], strict=True):
        assert torch.equal(ours, theirs)


def _choices(model):
    return [(name, part) for name, part in model.named_modules() if hasattr(part, "_candidates")]
