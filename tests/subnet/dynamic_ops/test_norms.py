from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.batchnorm import (
    DynamicBatchNorm1d,
    DynamicBatchNorm2d,
    DynamicBatchNorm3d,
    DynamicBatchNormXd,
    DynamicSyncBatchNorm,
)
from razordeploy.subnet.dynamic_ops.dmcp_batchnorm import DMCPBatchNorm2d
from razordeploy.subnet.dynamic_ops.layer_norm import DynamicGroupNorm, DynamicLayerNorm, DynamicLayerNorm2d
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear
from razordeploy.subnet.dynamic_ops.switchable_batchnorm import SwitchableBatchNorm2d
from razordeploy.subnet.markov import MarkovGroups

from .conftest import bools, register

SHAPES = {1: (6, 6, 5), 2: (6, 6, 4, 4), 3: (6, 6, 3, 3, 3)}


def _randomised(norm):
    """A norm whose parameters and statistics are not the neutral ones, behind which mistakes hide."""
    with torch.no_grad():
        for name, value in norm.state_dict().items():
            if value.dtype.is_floating_point:
                value.copy_(torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value))
    return norm


@pytest.mark.parametrize("mask", ["111000", "010110"])
@pytest.mark.parametrize(
    ("op", "plain", "rank"),
    [
        (DynamicBatchNorm1d, nn.BatchNorm1d, 1),
        (DynamicBatchNorm2d, nn.BatchNorm2d, 2),
        (DynamicBatchNorm3d, nn.BatchNorm3d, 3),
    ],
)
def test_batch_norm_is_its_slice(check, op, plain, rank, mask):
    norm = _randomised(plain(6)).eval()
    dynamic = register(op.convert_from(norm), num_features=mask)
    x = torch.randn(SHAPES[rank])
    sliced, static = check(dynamic, plain, x, mask, mask)
    torch.testing.assert_close(sliced, norm(x)[:, bools(mask)])
    assert static.num_features == 3
    assert list(static.state_dict()) == list(norm.state_dict())


@pytest.mark.parametrize("mask", ["111000", "010110", "111111"])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("masked", [False, True])
def test_training_updates_the_kept_statistics_alone(mask, momentum, masked):
    norm = _randomised(nn.BatchNorm2d(6, momentum=momentum))
    op = register(DynamicBatchNorm2d.convert_from(copy.deepcopy(norm)), num_features=mask)
    op.masked = masked
    keep, before = bools(mask), {name: value.clone() for name, value in op.state_dict().items()}
    for _ in range(3):
        x = torch.randn(SHAPES[2])
        out = op(x if masked else x[:, keep])
        expected = norm(x)
        torch.testing.assert_close(out[:, keep] if masked else out, expected[:, keep], atol=1e-5, rtol=1e-5)
    assert int(op.num_batches_tracked) == int(norm.num_batches_tracked)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(op, name)[keep], getattr(norm, name)[keep])
        assert torch.equal(getattr(op, name)[~keep], before[name][~keep])


def test_statistics_of_other_channels_stay():
    op = register(DynamicBatchNorm2d(4), num_features="1010")
    op(torch.randn(5, 2, 3, 3) + 7)
    assert op.running_mean[[1, 3]].tolist() == [0, 0]
    assert op.running_var[[1, 3]].tolist() == [1, 1]
    assert (op.running_mean[[0, 2]] > 0.5).all()


@pytest.mark.parametrize("training", [True, False])
def test_a_plain_norm_keeps_mode_and_count(training):
    # mmrazor's come out in training mode with a count of 0: one forward pass later the statistics are others.
    norm = _randomised(nn.BatchNorm2d(4)).train(training)
    norm.num_batches_tracked.fill_(7)
    static = register(DynamicBatchNorm2d.convert_from(norm), num_features="1010").to_static_op()
    assert static.training is training
    assert int(static.num_batches_tracked) == 7
    static.eval()(torch.randn(1, 2, 3, 3))
    assert torch.equal(static.running_mean, norm.running_mean[[0, 2]])
    static.train()(torch.randn(3, 2, 3, 3))
    assert not torch.equal(static.running_mean, norm.running_mean[[0, 2]])


def test_without_statistics_or_parameters():
    op = register(DynamicBatchNorm2d(4, affine=False), num_features="1010").eval()
    x = torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(op.to_static_op()(x), op(x))
    op = register(DynamicBatchNorm2d(4, track_running_stats=False), num_features="1010").eval()
    torch.testing.assert_close(op(x), functional.batch_norm(x, None, None, training=True))
    torch.testing.assert_close(op.to_static_op()(x), op(x))
    with pytest.raises(ModelError, match="nothing to slice"):
        register(DynamicBatchNorm2d(4, affine=False, track_running_stats=False), num_features="1010")


def test_synchronised_and_any_rank(check):
    from mmengine.model.utils import _BatchNormXd

    norm = _randomised(nn.SyncBatchNorm(6)).eval()
    dynamic = register(DynamicSyncBatchNorm.convert_from(norm), num_features="010110")
    check(dynamic, nn.SyncBatchNorm, torch.randn(4, 6, 3, 3), "010110", "010110")
    for shape in SHAPES.values():
        op = register(DynamicBatchNormXd.convert_from(_randomised(_BatchNormXd(6)).eval()), num_features="010110")
        check(op, _BatchNormXd, torch.randn(shape), "010110", "010110")


@pytest.mark.parametrize("mask", ["11110000", "01010110"])
def test_layer_norm_is_over_the_kept_channels(check, mask):
    norm = _randomised(nn.LayerNorm(8))
    op = register(DynamicLayerNorm.convert_from(norm), num_features=mask)
    x = torch.randn(2, 3, 8) * 3 + 1
    sliced, static = check(op, nn.LayerNorm, x, mask, mask, in_dim=-1, out_dim=-1)
    kept = x[..., bools(mask)].double()
    expected = (kept - kept.mean(-1, keepdim=True)) / (kept.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    expected = expected * norm.weight[bools(mask)] + norm.bias[bools(mask)]
    torch.testing.assert_close(sliced.double(), expected, atol=1e-5, rtol=1e-5)
    assert static.normalized_shape == (4,)
    with pytest.raises(ModelError, match="one dimension"):
        DynamicLayerNorm.convert_from(nn.LayerNorm((2, 8)))


def test_layer_norm_of_images(check):
    norms = pytest.importorskip("mmcls.models.utils.norm", reason="needs mmcls.models.utils.norm")
    norm = _randomised(norms.LayerNorm2d(6))
    x = torch.randn(2, 6, 4, 5)
    op = DynamicLayerNorm2d.convert_from(norm)
    torch.testing.assert_close(op(x), norm(x))
    torch.testing.assert_close(
        op(x.permute(0, 2, 3, 1), data_format="channel_last"), norm(x.permute(0, 2, 3, 1), data_format="channel_last")
    )
    register(op, num_features="010110")
    sliced = op(x[:, bools("010110")])
    static = op.to_static_op()
    assert type(static) is norms.LayerNorm2d
    torch.testing.assert_close(static(x[:, bools("010110")]), sliced)
    op.masked = True
    torch.testing.assert_close(op(x)[:, bools("010110")], sliced)
    with pytest.raises(ModelError, match="LayerNorm2d is no plain LayerNorm"):
        DynamicLayerNorm.convert_from(norm)


@pytest.mark.parametrize(("mask", "groups"), [("11001100", 2), ("10100101", 2), ("00001110", 1)])
def test_group_norm(check, mask, groups):
    norm = _randomised(nn.GroupNorm(2, 8))
    op = register(DynamicGroupNorm.convert_from(norm), num_channels=mask)
    x = torch.randn(2, 8, 3, 3)
    sliced, static = check(op, nn.GroupNorm, x, mask, mask)
    kept = bools(mask)
    expected = functional.group_norm(x[:, kept], groups, norm.weight[kept], norm.bias[kept])
    torch.testing.assert_close(sliced, expected)
    assert (static.num_groups, static.num_channels) == (groups, mask.count("1"))


def test_group_norm_refuses_uneven_groups():
    op = register(DynamicGroupNorm(2, 8), num_channels="11101100")
    with pytest.raises(ModelError, match=r"equally many channels .* got \[3, 2\]"):
        op(torch.randn(1, 5, 3, 3))


@pytest.mark.parametrize("shape", [(3, 4), (2, 5, 4)])
def test_linear_is_its_slice(check, shape):
    linear = nn.Linear(4, 6)
    op = register(DynamicLinear.convert_from(linear), in_features="0110", out_features="101001")
    x = torch.randn(shape)
    sliced, static = check(op, nn.Linear, x, "0110", "101001", in_dim=-1, out_dim=-1)
    zeroed = linear(x * bools("0110"))[..., bools("101001")]
    torch.testing.assert_close(sliced, zeroed, atol=1e-6, rtol=1e-5)
    assert (static.in_features, static.out_features) == (2, 3)


def test_switchable_norm_has_one_norm_a_width():
    norm = _randomised(nn.BatchNorm2d(8))
    op = SwitchableBatchNorm2d.convert_from(norm)
    op.init_candidates([2, 4, 8, 4])
    assert sorted(op.candidate_bn) == ["2", "4", "4_3"]
    torch.testing.assert_close(op.candidate_bn["4"].weight.data, norm.weight.data[:4])
    register(op, num_features="11110000")
    x = torch.randn(5, 4, 3, 3)
    _randomised(op.candidate_bn["4"])
    reference = copy.deepcopy(op.candidate_bn["4"])
    before = op.running_mean.clone()
    torch.testing.assert_close(op(x), reference(x))
    torch.testing.assert_close(op.candidate_bn["4"].running_mean, reference.running_mean)
    # The other widths' statistics are theirs.
    assert torch.equal(op.running_mean, before)
    assert torch.equal(op.candidate_bn["2"].running_mean, before[:2])
    for switch in (1, 3):
        op.switch = switch
        static = op.eval().to_static_op()
        assert type(static) is nn.BatchNorm2d
        assert list(static.state_dict()) == list(norm.state_dict())
        assert not static.training
        torch.testing.assert_close(static(x), op(x))
        plain = op.to_plain_op()
        assert plain.num_features == 8
        torch.testing.assert_close(plain(nn.functional.pad(x, (0, 0, 0, 0, 0, 4)))[:, :4], op(x))
    assert not torch.equal(op.candidate_bn["4_3"].running_mean, op.candidate_bn["4"].running_mean)


def test_switchable_norm_refuses_other_widths():
    op = SwitchableBatchNorm2d(8)
    op.init_candidates([2, 4])
    register(op, num_features="11100000")
    with pytest.raises(ModelError, match=r"no batch norm for 3 channels, expected one of \[2, 4, 8\]"):
        op(torch.randn(2, 3, 3, 3))
    with pytest.raises(ModelError, match="candidates already"):
        op.init_candidates([2])
    for width in (0, 9, 2.0, True):
        with pytest.raises(ModelError, match="widths from 1 to 8"):
            SwitchableBatchNorm2d(8).init_candidates([width])


@pytest.mark.parametrize("kept", [12, 7])
def test_dmcp_norm_weighs_groups_by_their_probability(kept):
    op = DMCPBatchNorm2d.convert_from(_randomised(nn.BatchNorm2d(12)).eval())
    register(op, num_features="1" * kept + "0" * (12 - kept))
    x = torch.randn(2, kept, 3, 3)
    plain = op(x)
    alpha = nn.Parameter(torch.tensor([0.1, -1.0, 0.7]))
    op.set_forward_args(alpha, MarkovGroups(group_size=3, num_groups=3, min_channels=3))
    keep = torch.tensor([-0.1, 0.0, -0.7]).exp()
    scale = torch.tensor([1.0] * 3 + [keep[0]] * 3 + [keep[0] * keep[1]] * 3 + [keep.prod()] * 3)[:kept]
    weighted = op(x)
    torch.testing.assert_close(weighted, plain * scale.view(1, -1, 1, 1))
    weighted.square().sum().backward()
    assert alpha.grad is not None
    assert dict(op.named_parameters()).keys() == {"weight", "bias"}
    static = op.to_static_op()
    assert not hasattr(static, "_arch")
    torch.testing.assert_close(static(x), plain)
    op.set_forward_args(None)
    assert torch.equal(op(x), plain)
    with pytest.raises(ModelError, match=r"shape \(2,\)"):
        op.set_forward_args(alpha[:2], MarkovGroups(group_size=3, num_groups=3, min_channels=3))
