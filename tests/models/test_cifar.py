from __future__ import annotations

import pytest
import torch

from razordeploy.data.cifar10_npz import data_root
from razordeploy.data.loader import batches
from razordeploy.data.sources import build_source
from razordeploy.models.cifar import PadShortcut, mobilenet, resnet20, resnet56
from razordeploy.train.evaluate import evaluate, module_predict

WEIGHTS = {resnet20: "resnet20-12fca82f.th", resnet56: "resnet56-4bfd9763.th"}


def weights(build) -> dict[str, torch.Tensor]:
    path = data_root() / "checkpoints" / WEIGHTS[build]
    if not path.is_file():
        pytest.skip(f"no public weights at {path} (set RAZORDEPLOY_DATA)")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {key.removeprefix("module."): value for key, value in state.items()}


# Table 6 of arXiv 1512.03385.
@pytest.mark.parametrize(("build", "millions"), [(resnet20, 0.27), (resnet56, 0.85)])
def test_published_parameter_counts(build, millions: float) -> None:
    assert round(sum(p.numel() for p in build().parameters()) / 1e6, 2) == millions


def test_option_a_shortcut_by_hand() -> None:
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    y = PadShortcut(2)(x)
    assert y.shape == (1, 4, 2, 2)
    assert y[0, 1].tolist() == [[0.0, 2.0], [8.0, 10.0]] and y[0, 2].tolist() == [[16.0, 18.0], [24.0, 26.0]]
    assert float(y[0, 0].abs().sum() + y[0, 3].abs().sum()) == 0.0


def test_shapes_and_classes() -> None:
    assert resnet20(7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_mobilenet_has_a_depthwise_convolution_in_every_block() -> None:
    model = mobilenet(7)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.groups > 1 for m in convolutions] == [False, *9 * (True, False)]
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 0.18


@pytest.mark.parametrize("build", WEIGHTS, ids=lambda build: build.__name__)
def test_keys_and_shapes_match_the_public_weights(build) -> None:
    build().load_state_dict(weights(build), strict=True)


@pytest.mark.timeout(120)
def test_resnet20_accuracy_on_the_first_1000_test_images() -> None:
    model = resnet20()
    model.load_state_dict(weights(resnet20))
    found = evaluate(module_predict(model), batches(build_source({"type": "cifar10_npz"}), 200, limit=1000))
    # All 10,000 give 81.03; 1,000 of them have a standard error of 1.2 points.
    assert found["samples"] == 1000 and abs(found["top1"] - 81.03) < 3.7
