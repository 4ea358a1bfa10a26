from __future__ import annotations

import pytest
import torch

from razordeploy.models.digits import resnet8


@pytest.mark.parametrize(("width", "classes"), [(16, 10), (4, 3)])
def test_shapes(width: int, classes: int) -> None:
    model = resnet8(classes, width)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, classes)
    assert model.layer2.downsample[0].weight.shape == (2 * width, width, 1, 1)


def test_parameters() -> None:
    assert sum(p.numel() for p in resnet8().parameters()) == 77_754


def test_the_shortcut_carries_the_input() -> None:
    block = resnet8().layer1.eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(1, 16, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_one_graph_for_any_batch() -> None:
    model = resnet8().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(program.module()(x), model(x))
