"""Every connector: shapes, what it computes, and where gradients go."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from razordeploy.compress.algorithm.build import build
from razordeploy.compress.distill.connectors.fbkd import NonLocal, channel_mask, spatial_mask
from razordeploy.compress.distill.connectors.ofd import margin_of
from razordeploy.compress.distill.connectors.table import CONNECTORS
from razordeploy.errors import ModelError, RecipeError

# Name -> (keywords, shape of the feature, shapes of what comes out).
CASES = {
    "BYOTConnector": (
        dict(in_channel=8, out_channel=16, num_classes=5, expansion=1, pool_size=8),
        (2, 8, 16, 16),
        [(2, 16), (2, 5)],
    ),
    "CRDConnector": (dict(dim_in=32, dim_out=8), (2, 8, 2, 2), [(2, 8)]),
    "ConvModuleConnector": (
        dict(in_channel=8, out_channel=12, norm_cfg=dict(type="BN")),
        (2, 8, 4, 4),
        [(2, 12, 4, 4)],
    ),
    "FBKDStudentConnector": (
        dict(in_channels=8),
        (2, 8, 4, 6),
        [(2, 1, 4, 6), (2, 8, 1, 1), (2, 8), (2, 1, 4, 6), (2, 8, 4, 6), (2, 8, 4, 6)],
    ),
    "FBKDTeacherConnector": (
        dict(in_channels=8, sub_sample=True),
        (2, 8, 4, 6),
        [(2, 1, 4, 6), (2, 8, 1, 1), (2, 1, 4, 6), (2, 8, 4, 6), (2, 8, 4, 6)],
    ),
    "MGDConnector": (dict(student_channels=8, teacher_channels=12), (2, 8, 4, 4), [(2, 12, 4, 4)]),
    "NormConnector": (dict(in_channels=8, norm_cfg=dict(type="GN", num_groups=2)), (2, 8, 4, 4), [(2, 8, 4, 4)]),
    "OFDTeacherConnector": (dict(), (2, 8, 4, 4), [(2, 8, 4, 4)]),
    "Paraphraser": (dict(in_channel=8, out_channel=4), (2, 8, 4, 4), [(2, 8, 4, 4)]),
    "TorchFunctionalConnector": (
        dict(function_name="avg_pool2d", func_args=dict(kernel_size=2)),
        (2, 8, 4, 4),
        [(2, 8, 2, 2)],
    ),
    "TorchNNConnector": (
        dict(module_name="Linear", module_args=dict(in_features=8, out_features=3)),
        (2, 8),
        [(2, 3)],
    ),
    "Translator": (dict(in_channel=8, out_channel=4), (2, 8, 4, 4), [(2, 4, 4, 4)]),
}


def made(name: str, **more) -> nn.Module:
    torch.manual_seed(0)
    connector = build({"type": f"mmrazor.{name}", **CASES[name][0], **more}, CONNECTORS, "connector")
    if name == "OFDTeacherConnector":
        connector.init_margin(torch.full((1, 8, 1, 1), -0.5))
    return connector


def feature(name: str) -> torch.Tensor:
    return torch.randn(CASES[name][1], generator=torch.Generator().manual_seed(1))


def test_the_table_is_tried_whole():
    assert set(CASES) == set(CONNECTORS) and len(CONNECTORS) == 12


@pytest.mark.parametrize("name", CASES)
def test_shapes_gradients_and_copies(name):
    connector, x = made(name), feature(name).requires_grad_()
    before = x.detach().clone()
    out = connector(x)
    found = out if isinstance(out, tuple) else (out,)
    assert [tuple(y.shape) for y in found] == CASES[name][2]
    assert torch.equal(x, before)
    if name == "OFDTeacherConnector":
        assert not out.requires_grad
    else:
        sum(y.square().sum() for y in found).backward()
        assert x.grad is not None and x.grad.abs().max() > 0
        unused = [key for key, p in connector.named_parameters() if p.grad is None]
        assert unused == []
    torch.manual_seed(2)
    first = connector.eval()(x)
    torch.manual_seed(2)
    again = pickle.loads(pickle.dumps(connector))(x)
    torch.testing.assert_close(again, first)


def test_a_conv_module_in_every_order():
    x = feature("ConvModuleConnector")
    connector = made("ConvModuleConnector")
    conv, norm = connector.conv_module.conv, connector.conv_module.bn
    assert conv.bias is None
    torch.testing.assert_close(connector(x), functional.relu(norm(conv(x))))
    first = made("ConvModuleConnector", order=["act", "norm", "conv"])
    assert first.conv_module.bn.num_features == 8
    kept = x.clone()
    torch.testing.assert_close(first(x), first.conv_module.conv(first.conv_module.bn(x.relu())))
    assert torch.equal(x, kept)
    plain = made("ConvModuleConnector", norm_cfg=None, act_cfg=None, kernel_size=3, stride=2, padding=1)
    assert plain.conv_module.conv.bias is not None
    assert plain(x).shape == (2, 12, 2, 2) and plain(x).min() < 0
    spectral = made("ConvModuleConnector", norm_cfg=None, act_cfg=None, with_spectral_norm=True).double()
    for _ in range(50):
        spectral(x.double())
    weight = spectral.conv_module.conv.weight.detach()[:, :, 0, 0]
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1.0, abs=1e-3)


def test_embeddings_have_length_one():
    torch.testing.assert_close(made("CRDConnector")(feature("CRDConnector")).norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("channels", [False, True])
def test_mgd_masks_the_share_it_is_given(channels):
    connector = made(
        "MGDConnector", student_channels=64, teacher_channels=64, lambda_mgd=0.65, mask_on_channel=channels
    )
    connector.generation = nn.Identity()
    out = connector(torch.ones(16, 64, 20, 20))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    # A position is masked in all channels, or a channel in all positions.
    mask = out[:, :, 0, 0] if channels else out[:, 0].flatten(1)
    assert torch.equal(out, (mask[:, :, None, None] if channels else mask.view(16, 1, 20, 20)).expand_as(out))
    deviation = math.sqrt(0.65 * 0.35 / mask.numel())
    assert abs((1 - mask.mean().item()) - 0.65) < 4 * deviation
    assert not torch.equal(out, connector(torch.ones(16, 64, 20, 20)))


def test_masks_sum_to_what_they_weigh():
    x = feature("FBKDStudentConnector").double()
    spatial, channel = spatial_mask(x, 0.5), channel_mask(x, 0.5)
    magnitude = x.abs().numpy()
    for n in range(2):
        e = np.exp(magnitude[n].mean(0) / 0.5)
        np.testing.assert_allclose(spatial[n, 0].numpy(), 24 * e / e.sum())
        e = np.exp(magnitude[n].mean((1, 2)) / 0.5)
        np.testing.assert_allclose(channel[n, :, 0, 0].numpy(), 8 * e / e.sum())


@pytest.mark.parametrize("mode", ["dot_product", "embedded_gaussian", "gaussian"])
@pytest.mark.parametrize("pool", [None, 2])
def test_non_local_relates_every_position_to_every_other(mode, pool):
    torch.manual_seed(0)
    block = NonLocal(4, mode=mode, norm_cfg=None, zeros_init=False, sub_sample=pool is not None, maxpool_stride=2)
    block = block.double()
    x = torch.randn(1, 4, 4, 6, dtype=torch.float64)

    def rows(y: torch.Tensor) -> np.ndarray:
        return y.detach()[0].flatten(1).t().numpy()

    query = x if mode == "gaussian" else block.theta(x)
    key, value = x if mode == "gaussian" else block.phi(x), block.g(x)
    if pool:
        # The predecessor pooled once by 2 and once more by the stride.
        key, value = (functional.max_pool2d(y, 2) for y in (key, value))
    q, k, v = rows(query), rows(key), rows(value)
    mixed = np.zeros((24, v.shape[1]))
    for i in range(24):
        weight = k @ q[i]
        if mode == "dot_product":
            weight = weight / len(k)
        else:
            weight = np.exp(weight / (math.sqrt(2) if mode == "embedded_gaussian" else 1.0))
            weight = weight / weight.sum()
        mixed[i] = weight @ v
    kernel, bias = block.conv_out.conv.weight.detach().numpy()[:, :, 0, 0], block.conv_out.conv.bias.detach().numpy()
    np.testing.assert_allclose(rows(block(x)), rows(x) + mixed @ kernel.T + bias, atol=1e-12)


def test_non_local_starts_as_the_identity():
    x = feature("FBKDStudentConnector")
    for norm in (dict(type="BN"), None):
        assert torch.equal(NonLocal(8, norm_cfg=norm)(x), x)


def test_factor_transfer_is_pretrained_then_frozen():
    teacher = made("Paraphraser", use_bn=True)
    x = feature("Paraphraser")
    optimizer = torch.optim.Adam(teacher.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = functional.l1_loss(teacher(x), x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    teacher.set_phase("train")
    state = {key: value.clone() for key, value in teacher.state_dict().items()}
    teacher.train()
    factor = teacher(x)
    assert factor.shape == (2, 4, 4, 4) and not factor.requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())
    assert torch.equal(factor, teacher.eval()(x))
    assert all(torch.equal(state[key], value) for key, value in teacher.state_dict().items())
    with pytest.raises(RecipeError, match="expected phase 'pretrain' or 'train', got 'pre'"):
        made("Paraphraser", phase="pre")


def test_margins_are_expected_negative_values():
    norm = nn.BatchNorm2d(6).double()
    rng = np.random.RandomState(0)
    # overhaul-distillation CIFAR-100/distiller.py, get_margin_from_BN; the third channel is never negative.
    norm.weight.data = torch.from_numpy(np.random.RandomState(6).standard_normal(6))
    norm.bias.data = torch.from_numpy(np.random.RandomState(7).standard_normal(6))
    norm.weight.data[2], norm.bias.data[2] = 0.1, 2.0
    margin = margin_of(norm)
    assert margin.shape == (1, 6, 1, 1)
    official = [-0.935351020463, -0.786937199955, -0.3, -0.58783321471, -2.29962857122, -0.727919209634]
    np.testing.assert_allclose(margin.flatten().numpy(), official, rtol=1e-9)
    for channel in (1, 4, 5):
        values = norm.bias[channel].item() + abs(norm.weight[channel].item()) * rng.standard_normal(200_000)
        assert margin.flatten()[channel].item() == pytest.approx(values[values < 0].mean(), rel=0.02)
        low = stats.norm(norm.bias[channel].item(), abs(norm.weight[channel].item())).expect(lambda v: v, ub=0)
        below = stats.norm.cdf(-norm.bias[channel].item() / abs(norm.weight[channel].item()))
        assert margin.flatten()[channel].item() == pytest.approx(low / below, rel=1e-6)


def test_a_constant_channel_has_a_margin():
    # The predecessor divided by a weight of zero.
    norm = nn.BatchNorm2d(3)
    norm.weight.data.zero_()
    norm.bias.data.copy_(torch.tensor([-2.0, 0.0, 3.0]))
    torch.testing.assert_close(margin_of(norm).flatten(), torch.tensor([-2.0, 0.0, 0.0]))


def test_the_margin_relu_and_its_state():
    connector = made("OFDTeacherConnector")
    out = connector(feature("OFDTeacherConnector"))
    torch.testing.assert_close(out, feature("OFDTeacherConnector").clamp(min=-0.5))
    other = made("OFDTeacherConnector")
    other.init_margin(torch.zeros(1, 8, 1, 1))
    other.load_state_dict(connector.state_dict())
    assert torch.equal(other.margin, connector.margin)
    with pytest.raises(ModelError, match=r"its margin is not set; use distiller=dict\(type='OFDDistiller'\)"):
        CONNECTORS["OFDTeacherConnector"]()(out)
    for norm in (nn.Conv2d(1, 1, 1), nn.BatchNorm2d(3, affine=False)):
        with pytest.raises(ModelError, match="expected a batch norm with weight and bias"):
            margin_of(norm)


def test_byot_takes_odd_sizes_and_strides_of_one():
    odd = made("BYOTConnector", pool_size=5)
    assert odd(torch.randn(2, 8, 9, 9))[0].shape == (2, 16)
    assert made("BYOTConnector", stride=1, pool_size=16)(feature("BYOTConnector"))[1].shape == (2, 5)
    with pytest.raises(RecipeError, match=r"expected 16 values after the pool, got 64; choose pool_size"):
        made("BYOTConnector")(torch.randn(2, 8, 32, 32))
    with pytest.raises(RecipeError, match="times a power of two, got 24 and 8"):
        made("BYOTConnector", out_channel=24)


def test_torch_by_name():
    x = torch.randn(2, 3, 4, 4)
    for name in ("normalize", "relu", "interpolate", "adaptive_max_pool2d"):
        arguments = {"interpolate": dict(scale_factor=2), "adaptive_max_pool2d": dict(output_size=1)}.get(name, {})
        connector = CONNECTORS["TorchFunctionalConnector"](function_name=name, func_args=arguments)
        assert torch.equal(connector(x), getattr(functional, name)(x, **arguments))
    assert CONNECTORS["TorchNNConnector"](module_name="ReLU")(x).min() == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            dict(type="ConvModuleConncetor"),
            "unknown connector 'ConvModuleConncetor'; did you mean 'ConvModuleConnector'",
        ),
        (dict(type="CRDConnector", in_dim=3), "CRDConnector has no keyword 'in_dim'; known: dim_in"),
        (dict(type="TorchFunctionalConnector", function_name="avg_pool"), "has no 'avg_pool'; did you mean 'avg_pool"),
        (dict(type="TorchFunctionalConnector", function_name="Tensor"), "has no 'Tensor'"),
        (dict(type="TorchNNConnector", module_name="Liner"), "no module 'Liner'; did you mean 'Linear'"),
        (dict(type="TorchNNConnector", module_name="Parameter"), "no module 'Parameter'"),
        (
            dict(type="TorchNNConnector", module_name="Linear", module_args=dict(inputs=1)),
            "torch.nn.Linear: .*'inputs'",
        ),
        (dict(type="NormConnector", in_channels=2, norm_cfg=dict(type="BM")), "unknown norm 'BM'; known: BN,"),
        (dict(type="NormConnector", in_channels=2, norm_cfg=dict(type="GN")), "'GN' needs num_groups"),
        (
            dict(type="ConvModuleConnector", in_channel=1, out_channel=1, act_cfg=dict(type="LeakyRelu")),
            "did you mean 'LeakyReLU'",
        ),
        (dict(type="ConvModuleConnector", in_channel=1, out_channel=1, order=["conv"]), "expected an order of conv"),
        (dict(type="ConvModuleConnector", in_channel=1, out_channel=1, conv_cfg=dict(type="Conv4d")), "'Conv"),
        (dict(type="MGDConnector", student_channels=1, teacher_channels=1, lambda_mgd=65), "from 0 to 1, got 65"),
        (dict(type="FBKDStudentConnector", in_channels=2, mode="dot"), "unknown mode 'dot'"),
    ],
)
def test_wrong_entries(config, message):
    with pytest.raises(RecipeError, match=message):
        build(config, CONNECTORS, "connector")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_init_cfg_is_mmengines():
    from mmengine.model import BaseModule

    class Holder(BaseModule):
        def __init__(self, connector: nn.Module) -> None:
            super().__init__()
            self.connector = connector

    config = dict(type="Constant", val=0.25, layer="Conv2d")
    holder = Holder(made("ConvModuleConnector", init_cfg=config))
    holder.init_weights()
    assert holder.connector.conv_module.conv.weight.unique().item() == 0.25
    Holder(made("ConvModuleConnector")).init_weights()
