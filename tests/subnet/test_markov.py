"""DMCP's Markov process (arXiv 2005.03354) against direct sampling."""

from __future__ import annotations

import pytest
import torch

from razordeploy.errors import ModelError
from razordeploy.subnet.markov import (
    cut_groups,
    expected_channels,
    marginal_probabilities,
    sample_channels,
)


def test_marginals_and_mean_are_those_of_direct_samples():
    alpha = torch.tensor([0.0, 0.2, -1.0, 0.5, 0.1])
    groups = cut_groups(100, (0.5, 1.0, 0.1))
    assert (groups.group_size, groups.num_groups, groups.min_channels) == (10, 5, 50)
    draws = torch.tensor([sample_channels(alpha, groups) for _ in range(10_000)], dtype=torch.float64)
    marginals = marginal_probabilities(alpha).double()
    for k in range(groups.num_groups):
        share = (draws >= groups.min_channels + groups.group_size * (k + 1)).double().mean()
        error = (marginals[k] * (1 - marginals[k]) / len(draws)).sqrt()
        assert abs(share - marginals[k]) <= 3 * error + 1e-9
    error = draws.std() / len(draws) ** 0.5
    assert abs(draws.mean() - expected_channels(alpha, groups)) < 3 * error


def test_mean_is_differentiable_and_whole_where_it_is_certain():
    groups = cut_groups(64, (0.25, 1.0, 0.25))
    alpha = torch.randn(groups.num_groups, dtype=torch.float64).abs().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: expected_channels(a, groups), (alpha,))
    assert float(expected_channels(torch.zeros(3), groups)) == 64
    assert float(expected_channels(torch.tensor([0.0, 1e9, 0.0]), groups)) == 32


@pytest.mark.parametrize("channels", [8, 17, 32, 100, 512, 2048])
def test_groups_fill_the_width(channels):
    groups = cut_groups(channels)
    assert groups.num_channels == channels
    assert groups.min_channels >= 1
    # Below 20 channels a group of 5 % has none.
    assert groups.num_groups == (18 if channels >= 20 else 0)


@pytest.mark.parametrize("cfg", [(0.0, 1.0, 0.1), (0.5, 0.4, 0.1), (0.1, 1.2, 0.1), (0.1, 1.0, 0.0)])
def test_bad_rates_are_refused(cfg):
    with pytest.raises(ModelError, match="pruning_cfg"):
        cut_groups(64, cfg)
