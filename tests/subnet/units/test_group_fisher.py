"""Group Fisher pruning (arXiv 2108.00708) against autograd and against counted multiply-adds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.mutators.pruners import GroupFisherChannelMutator
from razordeploy.subnet.static import make_static

from ..nets import ConvNet, randomise


@pytest.fixture
def prepared(config):
    def make(**default_args):
        model = randomise(ConvNet()).double()
        given = config("GroupFisherChannelUnit", {"mutate_linear": True, **default_args})
        mutator = GroupFisherChannelMutator(**given)
        mutator.prepare_from_supernet(model)
        return model, mutator

    return make


def _record(model, mutator, x):
    mutator.start_record_info()
    model(x.requires_grad_()).square().sum().backward()
    mutator.end_record_info()


class _Masked(nn.Module):
    """A layer whose input is multiplied by a mask for each sample."""

    def __init__(self, layer, masks, spans):
        super().__init__()
        self.layer, self.masks, self.spans = layer, masks, spans

    def forward(self, x):
        parts, end = [], 0
        for start, stop, repeat in self.spans:
            ones = x.new_ones(len(x), start - end)
            parts += [ones, self.masks.repeat_interleave(repeat, 1)]
            end = stop
        parts.append(x.new_ones(len(x), x.shape[1] - end))
        mask = torch.cat(parts, 1)
        return self.layer(x * mask.view(*mask.shape, *[1] * (x.dim() - 2)))


READERS = {
    "stem_(0, 8)_8": (8, {"expand": (0, 8, 1), "branch": (0, 8, 1), "last": (0, 8, 1)}),
    "expand_(0, 12)_12": (12, {"depthwise": (0, 12, 1), "project": (0, 12, 1)}),
    "branch_(0, 6)_6": (6, {"last": (8, 14, 1)}),
    "last_(0, 10)_10": (10, {"hidden": (0, 40, 4)}),
}


@pytest.mark.parametrize("name", READERS)
def test_information_is_the_squared_gradient_by_a_shared_mask(prepared, name):
    model, mutator = prepared(normalization_type="none")
    width, readers = READERS[name]
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    masks = torch.ones(5, width, dtype=torch.float64, requires_grad=True)
    reference = ConvNet().double().eval()
    reference.load_state_dict(model.state_dict())
    for layer, span in readers.items():
        setattr(reference, layer, _Masked(getattr(reference, layer), masks, [span]))
    reference(x).square().sum().backward()

    _record(model, mutator, x)
    mutator.update_imp()
    unit = mutator.unit(name)
    torch.testing.assert_close(unit.normalized_fisher_info, masks.grad.square().sum(0))
    # A second batch adds up.
    mutator.reset_recorded_info()
    _record(model, mutator, x)
    mutator.update_imp()
    torch.testing.assert_close(unit.normalized_fisher_info, 2 * masks.grad.square().sum(0))
    mutator.reset_imp()
    assert unit.normalized_fisher_info.abs().sum() == 0


def test_information_of_what_is_left(prepared):
    model, mutator = prepared(normalization_type="none")
    mutator.set_choices({"expand_(0, 12)_12": 5, "stem_(0, 8)_8": 3})
    _record(model, mutator, torch.randn(4, 3, 8, 8, dtype=torch.float64))
    mutator.update_imp()
    for name in ("expand_(0, 12)_12", "stem_(0, 8)_8"):
        unit = mutator.unit(name)
        assert (unit.normalized_fisher_info > 0).tolist() == unit.mask.tolist()
        assert unit.importance().isinf().tolist() == (~unit.mask).tolist()


def _multiply_adds(model, x):
    """Multiply-adds of one sample, counted by hooks."""
    total, stored = 0, {}

    def count(name):
        def hook(module, inputs, output):
            nonlocal total
            fan = module.weight[0].numel()
            total += output[0].numel() * fan
            stored[name] = output[0].numel()

        return hook

    handles = [
        module.register_forward_hook(count(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return total, stored


@pytest.mark.parametrize("name", [*READERS, "hidden_(0, 9)_9"])
def test_a_channel_costs_what_its_removal_saves(prepared, name):
    model, mutator = prepared()
    mutator.set_choices({"expand_(0, 12)_12": 7, "branch_(0, 6)_6": 4})
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    unit = mutator.unit(name)
    _record(model, mutator, x)
    flops, memory = unit.delta_flop_of_a_channel, unit.delta_memory_of_a_channel
    mutator.reset_recorded_info()
    before, stored = _multiply_adds(make_static(copy.deepcopy(model)), x)
    mutator.set_choices({name: unit.current_choice - 1})
    after, stored_after = _multiply_adds(make_static(copy.deepcopy(model)), x)
    assert flops == before - after
    assert memory == sum(stored.values()) - sum(stored_after.values())


@pytest.mark.parametrize(("kind", "scale"), [("flops", 1e9), ("act", 1e6)])
def test_normalised_information(prepared, kind, scale):
    model, mutator = prepared(normalization_type=kind)
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    _record(model, mutator, x)
    unit = mutator.unit("expand_(0, 12)_12")
    cost = unit.delta_flop_of_a_channel if kind == "flops" else unit.delta_memory_of_a_channel
    mutator.update_imp()
    torch.testing.assert_close(unit.normalized_fisher_info, unit.current_batch_fisher / (cost / scale))


def test_the_least_informative_channel_of_all_goes(prepared):
    model, mutator = prepared()
    _record(model, mutator, torch.randn(4, 3, 8, 8, dtype=torch.float64))
    mutator.update_imp()
    least = min(mutator.mutable_units, key=lambda unit: float(unit.importance().min()))
    index = int(least.importance().argmin())
    assert mutator.try_prune() == least.name
    assert least.mask.logical_not().nonzero().flatten().tolist() == [index]
    assert sum(unit.num_channels - unit.mask.sum() for unit in mutator.mutable_units) == 1
    assert model(torch.randn(1, 3, 8, 8, dtype=torch.float64)).shape == (1, 4)


def test_the_last_channel_stays_and_nan_prunes_nothing(prepared, caplog):
    _, mutator = prepared()
    mutator.set_choices({unit.name: 1 for unit in mutator.mutable_units})
    assert mutator.try_prune() is None
    _, mutator = prepared()
    mutator.unit("stem_(0, 8)_8").normalized_fisher_info[2] = float("nan")
    assert mutator.try_prune() is None
    assert "stem_(0, 8)_8" in caplog.text
    with pytest.raises(ModelError, match="recorded nothing"):
        mutator.update_imp()


def test_channels_before_a_linear_layer_stay_unless_asked(prepared):
    _, mutator = prepared(mutate_linear=False)
    names = [unit.name for unit in mutator.mutable_units]
    assert names == ["stem_(0, 8)_8", "expand_(0, 12)_12", "branch_(0, 6)_6"]
    with pytest.raises(ModelError, match="normalization_type"):
        prepared(normalization_type="memory")
