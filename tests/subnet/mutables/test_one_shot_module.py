from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from razordeploy.errors import ModelError, RecipeError
from razordeploy.subnet.mutables.one_shot_module import OneShotMutableOP, OneShotProbMutableOP


def _candidates():
    return nn.ModuleDict({k: nn.Conv2d(2, 2, int(k[-1]), padding=int(k[-1]) // 2) for k in ("conv1", "conv3", "conv5")})


def test_runs_one_candidate_or_all():
    op = OneShotMutableOP(_candidates())
    candidates = dict(op._candidates.items())
    x = torch.randn(1, 2, 6, 6)
    assert op.current_choice is None
    torch.testing.assert_close(op(x), sum(candidate(x) for candidate in candidates.values()))
    op.current_choice = "conv3"
    assert torch.equal(op(x), candidates["conv3"](x))
    assert (op.min_choice, op.max_choice) == ("conv1", "conv5")


def test_only_the_chosen_path_gets_gradients():
    op = OneShotMutableOP(_candidates())
    op.current_choice = "conv3"
    op(torch.randn(1, 2, 6, 6)).sum().backward()
    touched = {name for name, parameter in op.named_parameters() if parameter.grad is not None}
    assert touched == {"_candidates.conv3.weight", "_candidates.conv3.bias"}


def test_fixing_drops_the_other_candidates():
    op = OneShotMutableOP(_candidates(), alias="cell")
    x = torch.randn(1, 2, 6, 6)
    op.current_choice = "conv5"
    before = op(x)
    assert op.dump_chosen().chosen == "conv5"
    op.fix_chosen("conv5")
    assert torch.equal(op(x), before)
    assert (op.choices, op.current_choice, op.is_fixed) == (["conv5"], "conv5", True)
    with pytest.raises(ModelError, match="'cell' is fixed already"):
        op.fix_chosen("conv5")


def test_bad_choices_and_candidates_are_refused():
    op = OneShotMutableOP(_candidates())
    for choice in ("conv7", 3, ["conv3"]):
        with pytest.raises(ModelError, match="expected one of"):
            op.current_choice = choice
        with pytest.raises(ModelError, match="expected one of"):
            op.fix_chosen(choice)
    with pytest.raises(ModelError, match="no current choice to export"):
        op.dump_chosen()
    with pytest.raises(ModelError, match="at least one candidate"):
        OneShotMutableOP({})
    with pytest.raises(ModelError, match="dict or nn.ModuleDict"):
        OneShotMutableOP(["conv"])


def test_configs_are_built_and_left_as_they_are():
    configs = {
        "narrow": {"type": "mmrazor.DynamicLinear", "bias": False},
        "wide": {"type": "razordeploy.DynamicLinear"},
    }
    op = OneShotMutableOP(configs, module_kwargs={"in_features": 3, "out_features": 2})
    assert op(torch.randn(4, 3)).shape == (4, 2)
    assert op.max_choice == "wide"
    # module_kwargs used to be written into the caller's dicts, which are often shared between layers.
    assert configs["narrow"] == {"type": "mmrazor.DynamicLinear", "bias": False}
    with pytest.raises(RecipeError, match="did you mean 'DynamicLinear'"):
        OneShotMutableOP({"a": {"type": "mmrazor.DynamicLinaer"}})


def test_probabilities_decide_the_samples():
    op = OneShotProbMutableOP(_candidates(), choice_probs=[0.7, 0.3, 0.0])
    counts = Counter(op.sample_choice() for _ in range(2000))
    # 5 standard deviations of a binomial of 2000 and 0.7.
    assert abs(counts["conv1"] - 1400) < 103
    assert counts["conv5"] == 0
    # mmrazor's check lets every sum below one pass.
    for probs in ([0.2, 0.2, 0.2], [0.5, 0.5], [1.2, -0.2, 0.0]):
        with pytest.raises(ModelError, match="sum to 1"):
            OneShotProbMutableOP(_candidates(), choice_probs=probs)
