"""``prune``: what it returns, what it keeps of the original, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import razordeploy as rd
from razordeploy.errors import ModelError, UsageError
from razordeploy.models.cifar import resnet20
from razordeploy.subnet.channel_graph import channel_graph
from razordeploy.subnet.slice import slice_model


class Net(nn.Module):
    """Convolutions, a batch norm, dropout, a residual add, attention heads and a classifier."""

    def __init__(self, width=16, heads=4):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.mid, self.back = nn.Conv2d(width, 24, 3, padding=1), nn.Conv2d(24, width, 3, padding=1)
        self.width, self.heads = width, heads
        self.norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(width, 5)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        x = x + self.back(F.relu(self.mid(x)))
        x = x.flatten(2).transpose(1, 2)
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, self.width // 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).flatten(2)
        return self.fc(self.drop((x + self.proj(y)).mean(1)))


class Fixed(nn.Module):
    """Its code says 8 where no attribute does."""

    def __init__(self):
        super().__init__()
        self.a, self.bn, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8 * 36, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.b(self.drop(F.relu(self.bn(self.a(x)))).reshape(-1, 8 * 36))


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def outputs(model, *inputs):
    with torch.no_grad():
        return model(*inputs)


def test_a_plain_model_stays_its_own_class(x):
    model = Net()
    small = rd.prune(model, example_inputs=(x,), choice=0.5)
    assert type(small) is Net
    assert small.stem.out_channels == small.bn.num_features == small.norm.normalized_shape[0] == 8
    assert (small.mid.in_channels, small.mid.out_channels) == (8, 12)
    assert small.heads == 2 and small.qkv.weight.shape == (24, 8)
    assert outputs(small.eval(), x).shape == (2, 5)
    assert outputs(small, torch.cat([x, x, x])).shape == (6, 5)


def test_the_original_is_left_alone(x):
    model = Net()
    before = copy.deepcopy(model.state_dict())
    small = rd.prune(model, example_inputs=(x,), choice=0.5)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.heads == 4 and model.training


def test_code_that_fixes_a_width_becomes_a_graph_with_the_same_names(x):
    model = Fixed().eval()
    made = slice_model(model, channel_graph(model, x), 0.5, example_inputs=x)
    assert made.form == "graph" and "its code fixes a width" in made.why
    assert list(made.module.state_dict()) == list(model.state_dict())
    assert made.module.a.weight.shape[0] == 4
    assert outputs(made.module, torch.cat([x, x, x])).shape == (6, 5)


def test_a_graph_follows_train_and_eval(x):
    model = Fixed().eval()
    small = rd.prune(model, example_inputs=x)
    assert not any(m.training for m in small.modules())
    assert torch.equal(outputs(small, x), outputs(small, x))
    small.train()
    mean = small.bn.running_mean.clone()
    assert not torch.equal(outputs(small, x), outputs(small, x)), "dropout is off"
    assert not torch.equal(small.bn.running_mean, mean), "statistics do not move"


def test_slicing_equals_masking(x):
    model = Net().eval()
    model.norm = nn.Identity()  # statistics over channels change when channels go
    graph = channel_graph(model, x)
    made = slice_model(model, graph, 0.5, example_inputs=x)
    assert made.form == "module"
    masked = copy.deepcopy(model)
    names = {n: t for n, t in [*masked.named_parameters(), *masked.named_buffers()]}
    kept = graph.kept(made.selection, lambda unit, strand: _l1(model, unit))
    with torch.no_grad():
        for name in made.selection.widths:
            unit = graph.units[name]
            stays = torch.zeros(unit.channels, dtype=torch.bool)
            stays[kept.index(graph.strands[name][0])] = True
            for member in unit.members:
                tensor = names[member.tensor]
                shape = [-1 if d == member.dim else 1 for d in range(tensor.dim())]
                tensor.masked_fill_(~member.mask(stays).reshape(shape), 0.0)
    assert torch.allclose(outputs(made.module, x), outputs(masked, x), atol=1e-5)


def _l1(model, unit):
    """A second implementation: the L1 norm of the rows of every producing weight."""
    total = torch.zeros(unit.channels)
    for member in unit.outputs():
        if member.is_weight:
            rows = model.get_parameter(member.tensor).detach().abs().flatten(1).sum(1)
            for span in member.spans:
                for element in range(unit.channels):
                    total[element] += sum(rows[p] for p in span.positions(element))
    return total


def test_the_smallest_filters_go(x):
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    with torch.no_grad():
        for channel, size in enumerate((3.0, 0.1, 2.0, 0.2, 5.0, 0.3)):
            model[0].weight[channel] = size
    small = rd.prune(model, example_inputs=x, choice=0.5)
    assert small[0].weight[:, 0, 0, 0].tolist() == [3.0, 2.0, 5.0]
    assert torch.equal(small[2].weight, model[2].weight[:, [0, 2, 4]])


def test_filters_of_a_transposed_convolution_are_ranked_by_what_they_make(x):
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        for channel, size in enumerate((1.0, 4.0, 2.0, 3.0)):
            model[0].weight[:, channel] = size
    assert rd.prune(model, example_inputs=x)[0].weight[0, :, 0, 0].tolist() == [4.0, 3.0]


def test_types_gradients_modes_and_layouts_stay():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    model = Net().double().to(memory_format=torch.channels_last)
    model.stem.weight.requires_grad_(False)
    model.bn.eval()
    small = rd.prune(model, example_inputs=x)
    assert small.stem.weight.dtype == torch.float64
    assert not small.stem.weight.requires_grad and small.mid.weight.requires_grad
    assert small.mid.weight.is_contiguous(memory_format=torch.channels_last)
    assert small.training and not small.bn.training


def test_a_pruned_model_trains_and_its_state_loads_into_another(x):
    model = Net()
    small = rd.prune(model, example_inputs=x)
    small(x).sum().backward()
    assert all(p.grad is not None for p in small.parameters())
    again = rd.prune(Net(), example_inputs=x)
    again.load_state_dict(small.state_dict())
    assert torch.equal(outputs(again.eval(), x), outputs(small.eval(), x))


def test_a_pruned_model_can_be_pruned_again(x):
    once = rd.prune(Net(), example_inputs=x, choice=0.5)
    twice = rd.prune(once, example_inputs=x, choice=0.5)
    assert (twice.stem.out_channels, twice.mid.out_channels, twice.heads) == (4, 6, 1)


def test_torch_transformer_layers_stay_what_they_are():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.out = nn.Linear(12, 16), nn.Linear(16, 4)
            self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

        def forward(self, x):
            return self.out(self.layer(self.inp(x)))

    model, x = Encoder().eval(), torch.randn(2, 5, 12)
    made = slice_model(model, channel_graph(model, x), 0.5, example_inputs=x)
    assert made.form == "module", made.why
    assert (made.module.layer.self_attn.num_heads, made.module.layer.self_attn.embed_dim) == (2, 8)


def test_a_narrower_head_keeps_the_scale_of_its_products(x):
    """The code takes the scale from the width; what was trained has the scale of the old one."""
    model = Net().eval()
    made = slice_model(model, channel_graph(model, x), {"qkv_(0, 48)_4_2": 2}, example_inputs=x)
    assert made.form == "graph" and made.module.qkv.weight.shape == (24, 16)


def test_a_module_may_hold_tensors_that_are_no_buffers(x):
    model = Net()
    model.cache = torch.zeros(16)
    assert torch.equal(rd.prune(model, example_inputs=x).cache, model.cache)


def test_shared_weights_stay_shared(x):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.one, self.out = nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 5)
            self.two = nn.Linear(12, 12)
            self.two.weight = self.one.weight

        def forward(self, x):
            x = self.inp(x).relu()
            return self.out(x + self.two(self.one(x)))

    small = rd.prune(Tied(), example_inputs=x)
    assert small.one.weight is small.two.weight and small.one.weight.shape == (6, 6)


def test_choices_by_name_and_by_function(x):
    model = Net()
    small = rd.prune(model, example_inputs=x, choice={"mid_(0, 24)_24": 7})
    assert small.mid.out_channels == 7 and small.stem.out_channels == 16
    small = rd.prune(model, example_inputs=x, choice=lambda unit: 0.25 if unit.statistical else None)
    assert small.mid.out_channels == 24 and small.stem.out_channels == 4
    mask = torch.arange(24) % 3 == 0
    small = rd.prune(model, example_inputs=x, choice={"mid_(0, 24)_24": mask})
    assert torch.equal(small.mid.bias, model.mid.bias[mask])


def test_widths_are_rounded_to_what_engines_want(x):
    model = Net()
    assert rd.prune(model, example_inputs=x, choice=0.55, round_to=8).mid.out_channels == 16
    with pytest.raises(UsageError, match="12 of 24 is no possible width with round_to=8; 16 is"):
        rd.prune(model, example_inputs=x, choice={"mid_(0, 24)_24": 12}, round_to=8)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (0, "expected a share of the channels, above 0 and up to 1.0, got 0"),
        (0.0, "above 0"),
        (1.5, "up to 1.0"),
        (float("nan"), "got nan"),
        (True, "got True"),
        ({"mid_(0, 24)_24": 0}, "expected 1 to 24 channels, got 0"),
        ({"mid_(0, 24)_24": 25}, "expected 1 to 24 channels, got 25"),
        ({"mid_(0, 24)_24": -0.5}, "above 0"),
        ({"mid_(0, 24)_24": "half"}, "got str"),
        ({"mid_(0, 24)_24": []}, "at least one position"),
        ({"mid_(0, 24)_24": [1, 1]}, "different positions from 0 to 23"),
        ({"mid_(0, 24)_24": [24]}, "different positions from 0 to 23"),
        ({"mid_(0, 24)_24": torch.ones(7, dtype=torch.bool)}, "a mask of 24 channels"),
        ({"mid_(0, 24)_23": 3}, "no unit is called 'mid_(0, 24)_23'; did you mean 'mid_(0, 24)_24'?"),
        ({"fc_(0, 5)_5": 3}, "'fc_(0, 5)_5' cannot be pruned: it is an output of the model"),
    ],
)
def test_impossible_choices_are_refused(choice, message, x):
    with pytest.raises(UsageError) as error:
        rd.prune(Net(), example_inputs=x, choice=choice)
    assert message in str(error.value)


def test_importance_has_to_fit(x):
    with pytest.raises(UsageError, match=r"expected \(16,\) values, got shape \(3,\)"):
        rd.prune(Net(), example_inputs=x, importance=lambda unit, strand: torch.ones(3))


def test_a_model_without_channels_of_its_own_is_refused(x):
    with pytest.raises(ModelError, match=r"nothing in Linear can be pruned \(weight_\(0, 5\)_5: it is an output"):
        rd.prune(nn.Linear(8, 5), example_inputs=torch.randn(2, 8))


def test_signatures_with_keywords_and_dicts_stay():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(4, 8), nn.Linear(8, 5)

        def forward(self, x, *, other):
            y = self.a(x) + self.b(other["y"])
            return {"logits": self.out(y.relu()), "sum": y.sum(-1)}

    x, other = torch.randn(2, 6), {"y": torch.randn(2, 4)}
    model = Two()
    made = slice_model(
        model,
        channel_graph(model, x, {"other": other}),
        0.5,
        example_inputs=x,
        example_kwargs={"other": other},
    )
    assert made.form == "module" and made.module.out.in_features == 4
    with torch.no_grad():
        assert made.module(x, other=other)["logits"].shape == (2, 5)


def test_option_a_shortcuts_lose_padding(x):
    images = torch.randn(2, 3, 32, 32)
    small = rd.prune(resnet20(), example_inputs=images)
    assert outputs(small.eval(), images).shape == (2, 10)
    assert sum(p.numel() for p in small.parameters()) < 0.3 * sum(p.numel() for p in resnet20().parameters())


class Positions(nn.Module):
    """Most of its parameters mix positions, not channels."""

    def __init__(self):
        super().__init__()
        self.a, self.mix, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(64, 64), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        return self.b(self.mix(self.a(x).flatten(2)).unflatten(2, (8, 8)))


def test_parameters_that_no_choice_shrinks_are_named(x, caplog):
    with caplog.at_level("WARNING", logger="razordeploy"):
        rd.prune(Positions(), example_inputs=(x,), choice=0.5)
    assert "89 % of the parameters stay at any choice: mix.weight (88%" in caplog.text
    assert "spatial" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING", logger="razordeploy"):
        rd.prune(Net(), example_inputs=(x,), choice=0.5)
    assert not caplog.text


class Masked(nn.Module):
    """Adds a mask that its code writes piece by piece."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        mask = torch.zeros(8, 8)
        for count, part in enumerate((slice(0, 3), slice(3, 6), slice(6, None))):
            mask[:, part] = count
        return self.b((self.a(x) + mask.masked_fill(mask != 0, -1.0)).softmax(-1))


def test_constants_of_the_code_are_not_perturbed(x):
    model = Masked()
    assert slice_model(model, channel_graph(model, (x,)), 0.5, example_inputs=(x,)).form == "module"
