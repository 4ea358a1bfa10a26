from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.units.channel import Channel
from razordeploy.subnet.units.l1 import L1MutableChannelUnit, filter_norms


def _unit(*modules, width, **keywords):
    unit = L1MutableChannelUnit(width, **keywords)
    for index, module in enumerate(modules):
        unit.add(Channel(name=f"m{index}", module=module, start=0, end=width))
    return unit


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv1d(6, 10, 3),
        nn.Conv2d(6, 10, 3),
        nn.Conv2d(6, 12, 3, groups=3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Linear(6, 10),
        nn.ConvTranspose2d(6, 10, 3),
        nn.ConvTranspose2d(6, 12, 3, groups=3),
    ],
    ids=str,
)
def test_score_is_the_norm_of_what_makes_the_channel(module):
    # mmrazor's flatten(1) has a row for each input of a transposed convolution.
    out = module.out_features if isinstance(module, nn.Linear) else module.out_channels
    norms = filter_norms(Channel(name="m", module=module, start=0, end=out))
    assert norms.sums.shape == (out,)
    for channel in range(out):
        module.zero_grad()
        x = torch.randn(1, 6 if out != 8 else 8, *[5] * (module.weight.dim() - 2))
        y = module(x)
        (y[..., channel] if isinstance(module, nn.Linear) else y[:, channel]).sum().backward()
        # The weights that one output depends on are its filter.
        filter_ = module.weight[module.weight.grad != 0]
        torch.testing.assert_close(norms.sums[channel], filter_.abs().sum().detach())
        torch.testing.assert_close(norms.means[channel], filter_.abs().mean().detach())


def test_on_a_chain_the_smallest_filters_go():
    conv = nn.Conv2d(4, 16, 3)
    unit = _unit(conv, width=16)
    unit.current_choice = 8
    order = conv.weight.abs().sum((1, 2, 3)).argsort(descending=True)
    assert set(torch.nonzero(unit.mask).flatten().tolist()) == set(order[:8].tolist())
    assert unit.current_choice == 8


def test_producers_add_up_or_have_a_vote_each():
    torch.manual_seed(0)
    narrow, wide = nn.Conv2d(8, 16, 1), nn.Conv2d(64, 16, 3)
    by_sum = _unit(narrow, wide, width=16)
    by_mean = _unit(narrow, wide, width=16, group_reduction="mean")
    rows = [m.weight.detach().abs().flatten(1) for m in (narrow, wide)]
    torch.testing.assert_close(by_sum.importance(), rows[0].sum(1) + rows[1].sum(1))
    torch.testing.assert_close(by_mean.importance(), rows[0].mean(1) + rows[1].mean(1))
    by_sum.current_choice = by_mean.current_choice = 8
    assert not torch.equal(by_sum.mask, by_mean.mask)
    assert by_mean.config_template(with_init_args=True)["init_args"]["group_reduction"] == "mean"
    assert "group_reduction" not in by_sum.config_template(with_init_args=True)["init_args"]
    with pytest.raises(ModelError, match="group_reduction"):
        L1MutableChannelUnit(4, group_reduction="max")


def test_the_first_of_equals_stays():
    conv = nn.Conv2d(2, 6, 1)
    nn.init.ones_(conv.weight)
    unit = _unit(conv, width=6)
    unit.current_choice = 2
    assert unit.mask.tolist() == [True, True, False, False, False, False]
