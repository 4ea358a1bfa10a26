"""Feature maps as pictures: what is recorded, how it is reduced, what differs, what is drawn."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from razordeploy.compress.distill.feature_maps import (
    MapStyle,
    difference,
    draw_features,
    record_features,
    reduced,
    unit,
)
from razordeploy.errors import ModelError, RecipeError, UsageError
from tests.compress.distill.tiny import images, outputs, tiny


def test_recorded_is_what_the_layer_gives_and_nothing_stays():
    model, x = tiny(0).eval(), images(2)
    maps = record_features(model, x, {"relu": outputs("relu1")}, {"first": {"recorder": "relu"}})
    with torch.no_grad():
        assert torch.equal(maps["first"], model.relu1(model.bn1(model.conv1(x)))[0])
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ({"recorder": "rellu"}, RecipeError, "no recorder 'rellu'; did you mean 'relu'"),
        ({"recorder": "relu", "index": 0}, RecipeError, "unknown key 'index'"),
        ({"recorder": "fc"}, ModelError, r"expected a feature \(N, C, H, W\), got \(2, 3\)"),
    ],
)
def test_wrong_mappings(mapping, error, message):
    recorders = {"relu": outputs("relu1"), "fc": outputs("fc")}
    with pytest.raises(error, match=message):
        record_features(tiny(0), images(2), recorders, {"p": mapping})


def test_reductions():
    feature = torch.tensor([[[1.0, 2.0]], [[5.0, 0.0]], [[3.0, 3.0]]])
    assert torch.equal(reduced(feature, MapStyle()), torch.tensor([[[3.0, 5 / 3]]]))
    assert torch.equal(reduced(feature, MapStyle(channel_reduction="pixel_wise_max")), torch.tensor([[[5.0, 3.0]]]))
    assert torch.equal(reduced(feature, MapStyle(channel_reduction="select_max")), feature[2:])
    top = reduced(feature, MapStyle(channel_reduction=None, topk=2, arrangement=(1, 2)))
    assert torch.equal(top, feature[[2, 1]])
    assert torch.equal(reduced(feature, MapStyle(channel_reduction=None, topk=-1)), feature)


def test_a_difference_ignores_channels_and_scale():
    a = torch.rand(4, 6, 6)
    same = torch.cat([a, a]) * 7 - 3
    assert difference(a, same, MapStyle()).abs().max() < 1e-5
    other = difference(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]]), MapStyle())
    assert torch.equal(other, torch.ones(1, 1, 2))
    assert torch.equal(unit(torch.full((1, 2, 2), 3.0)), torch.zeros(1, 2, 2))


def test_a_sheet_of_two_models_has_their_difference(tmp_path):
    first, second = ({"stage": torch.rand(c, 4, 4)} for c in (4, 8))
    file = draw_features(
        torch.rand(1, 8, 8), {"t": first, "s": second}, MapStyle(overlaid=True), tmp_path / "d" / "x.png"
    )
    raw = file.read_bytes()
    width, height = struct.unpack(">II", raw[16:24])
    alone = draw_features(torch.rand(3, 8, 8), {"t": first}, MapStyle(), tmp_path / "one.png").read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n" and width > height
    assert width == 2 * struct.unpack(">I", alone[16:20])[0]


def test_wrong_styles():
    with pytest.raises(UsageError, match="did you mean 'select_max'"):
        MapStyle(channel_reduction="select_mx")
    with pytest.raises(UsageError, match="30 channels do not fit into 4 x 5 places"):
        MapStyle(channel_reduction=None, topk=30)
    with pytest.raises(UsageError, match="alpha"):
        MapStyle(alpha=2.0)
    assert np.isclose(MapStyle().alpha, 0.5)
