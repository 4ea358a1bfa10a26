"""Losses on feature maps, each with loops over what its equation sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.compress.distill.losses.ab import ABLoss
from razordeploy.compress.distill.losses.at import ATLoss
from razordeploy.compress.distill.losses.cwd import ChannelWiseDivergence
from razordeploy.compress.distill.losses.fbkd import FBKDLoss
from razordeploy.compress.distill.losses.ft import FTLoss
from razordeploy.compress.distill.losses.mgd import MGDLoss
from razordeploy.compress.distill.losses.ofd import OFDLoss
from razordeploy.compress.distill.losses.pkd import PKDLoss
from razordeploy.errors import ModelError
from tests.compress.distill.losses.draws import array, close, features, softmax, tensor


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum())


def test_equal_the_official_numbers():
    student, teacher = features()
    # TorchDistiller SemSeg-distill/utils/criterion.py, CriterionCWD('channel', 'kl', 4).
    assert close(ChannelWiseDivergence(tau=4)(student, teacher), 0.989786426594, 1e-10)
    # attention-transfer utils.py, at_loss.
    assert close(ATLoss()(tensor(5, 4, 3, 3, 5), teacher), 0.0387549845567, 1e-10)
    # AB_distillation cifar10_AB_distillation.py, criterion_alternative_L2 / batch / 1000 * 3.
    assert close(ABLoss()(student, teacher), 0.581147201162, 1e-10)
    # Factor-Transfer-pytorch utils.py, FT, with L1Loss.
    assert close(FTLoss()(student, teacher), 0.121607927167, 1e-10)
    # PKD as in its authors' mmrazor branch; MGD mmseg/distillation/losses/mgd.py.
    assert close(PKDLoss()(student, teacher), 0.990971796723, 1e-9)
    assert close(MGDLoss()(student, teacher), 0.00376395835778, 1e-10)


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_cwd_is_a_divergence_per_channel(tau):
    student, teacher = (x.numpy() for x in features())
    total = 0.0
    for n in range(4):
        for c in range(6):
            p_s, p_t = softmax(student[n, c].ravel(), tau), softmax(teacher[n, c].ravel(), tau)
            total += (p_t * np.log(p_t / p_s)).sum()
    assert close(ChannelWiseDivergence(tau=tau, loss_weight=5.0)(*features()), 5.0 * tau**2 * total / 24)


def test_cwd_takes_maps_in_any_memory_layout():
    student, teacher = features()
    expected = ChannelWiseDivergence()(student, teacher)
    student = student.to(memory_format=torch.channels_last)
    torch.testing.assert_close(ChannelWiseDivergence()(student, teacher), expected)


def test_at_compares_attention_maps():
    student, teacher = array(5, 4, 3, 3, 5), array(4, 4, 6, 3, 5)
    squares = []
    for s, t in zip(student, teacher, strict=True):
        squares += list((unit((s**2).mean(0)) - unit((t**2).mean(0))).ravel() ** 2)
    found = ATLoss(loss_weight=250.0)(torch.from_numpy(student), torch.from_numpy(teacher))
    assert close(found, 250.0 * np.mean(squares))
    with pytest.raises(ModelError, match=r"'interpolate', func_args=dict\(size=\(3, 5\)\)"):
        ATLoss()(torch.zeros(4, 3, 6, 10), torch.from_numpy(teacher))


@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_ab_is_a_squared_hinge_on_the_teachers_side(margin):
    total = 0.0
    for s, t in zip(*(x.numpy().ravel() for x in features()), strict=True):
        total += max(0.0, margin - s) ** 2 if t > 0 else max(0.0, margin + s) ** 2
    assert close(ABLoss(margin=margin, loss_weight=0.5)(*features()), 0.5 * 3 * total / 1000 / 4)


def test_ab_asks_nothing_beyond_the_margin():
    teacher = torch.tensor([[1.0, -1.0, 0.0, 5.0]])
    assert ABLoss()(torch.tensor([[1.0, -1.0, -2.0, 7.0]]), teacher).item() == 0
    # A teacher at exactly zero is off: the student has to be below.
    assert ABLoss()(torch.zeros(1, 1), torch.zeros(1, 1)).item() == pytest.approx(0.003)


def test_ft_compares_unit_factors():
    pairs = zip(*(x.numpy() for x in features()), strict=True)
    expected = np.mean([np.abs(unit(s) - unit(t)).mean() for s, t in pairs])
    assert close(FTLoss(loss_weight=500.0)(*features()), 500.0 * expected)


def test_ofd_skips_what_is_off_in_both():
    total = 0.0
    for s, t in zip(*(x.numpy().ravel() for x in features()), strict=True):
        total += 0.0 if s <= t <= 0 else (s - t) ** 2
    assert close(OFDLoss(loss_weight=0.25)(*features()), 0.25 * total / 4 / 1000)
    assert OFDLoss()(torch.tensor([[-3.0]]), torch.tensor([[-1.0]])).item() == 0


@pytest.mark.parametrize("levels", [1, 2])
def test_pkd_is_one_minus_the_correlation(levels):
    student, teacher = (x.numpy() for x in features())
    expected = 0.0
    for c in range(6):
        r = np.corrcoef(student[:, c].ravel(), teacher[:, c].ravel())[0, 1]
        # 60 values of a channel, and a deviation with 60 - 1.
        expected += (1 - r) * 59 / 60 / 6
    found = PKDLoss(loss_weight=10.0)(*(x if levels == 1 else (x, x) for x in features()))
    assert close(found, 10.0 * expected * levels, 1e-5)


@pytest.mark.parametrize("size", [(3, 10), (6, 5), (6, 10)], ids=["width", "height", "both"])
def test_pkd_resizes_whichever_side_differs(size):
    student, teacher = features()
    large = torch.nn.functional.interpolate(student, size, mode="bilinear")
    back = torch.nn.functional.interpolate(large, (3, 5), mode="bilinear")
    torch.testing.assert_close(PKDLoss()(large, teacher), PKDLoss()(back, teacher))
    up = torch.nn.functional.interpolate(teacher, size, mode="bilinear")
    torch.testing.assert_close(PKDLoss(resize_stu=False)(large, teacher), PKDLoss()(large, up))


def test_pkd_refuses_levels_without_a_partner():
    with pytest.raises(ModelError, match="as many levels of both, got 2 and 1"):
        PKDLoss()((features()[0],) * 2, (features()[1],))


def test_mgd_is_a_sum_over_a_sample():
    student, teacher = (x.numpy() for x in features())
    assert close(MGDLoss(alpha_mgd=2.0)(*features()), 2.0 * ((student - teacher) ** 2).sum() / 4)


def fbkd_inputs() -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    student = (tensor(30, 4, 1, 3, 5).abs(), tensor(31, 4, 6, 1, 1), tensor(32, 4, 6), tensor(33, 4, 1, 3, 5))
    teacher = (tensor(36, 4, 1, 3, 5).abs(), tensor(37, 4, 6, 1, 1), tensor(38, 4, 1, 3, 5))
    return (*student, tensor(34, 4, 6, 3, 5), tensor(35, 4, 6, 3, 5)), (
        *teacher,
        tensor(39, 4, 6, 3, 5),
        tensor(40, 4, 6, 3, 5),
    )


def test_fbkd_adds_four_distances():
    student, teacher = fbkd_inputs()
    s_mask, _, s_channel, s_spatial, s_relation, s_feature = (x.numpy() for x in student)
    t_mask, _, t_spatial, t_relation, t_feature = (x.numpy() for x in teacher)
    mask = (s_mask + t_mask) / 2
    expected = (
        2.0 * np.sqrt(((t_feature - s_feature) ** 2 * mask).sum())
        + 3.0 * np.sqrt(((t_feature.mean((2, 3)) - s_channel) ** 2).sum())
        + 5.0 * np.sqrt(((t_spatial - s_spatial) ** 2).sum())
        + 7.0 * np.sqrt(((t_relation - s_relation) ** 2).sum())
    )
    loss = FBKDLoss(mask_l2_weight=2, channel_weight=3, spatial_weight=5, nonlocal_weight=7, loss_weight=0.5)
    assert close(loss(student, teacher), 0.5 * expected)


def test_fbkd_has_a_gradient_where_both_agree():
    (mask, channel_mask, _, spatial, relation, feature), _ = fbkd_inputs()
    leaf = feature.clone().requires_grad_()
    student = (mask, channel_mask, feature.mean((2, 3)), spatial, relation, leaf)
    loss = FBKDLoss()(student, (mask, channel_mask, spatial, relation, feature))
    loss.backward()
    assert loss.item() == 0
    assert leaf.grad is not None and torch.equal(leaf.grad, torch.zeros_like(feature))
