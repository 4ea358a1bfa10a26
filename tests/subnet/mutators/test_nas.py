from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.batchnorm import DynamicBatchNorm2d
from razordeploy.subnet.dynamic_ops.kernel_conv import BigNasConv2d
from razordeploy.subnet.dynamic_ops.sequential import DynamicSequential
from razordeploy.subnet.fix import export_fix_subnet, load_fix_subnet
from razordeploy.subnet.mutables.channel import OneShotMutableChannel
from razordeploy.subnet.mutables.choice_route import DiffChoiceRoute
from razordeploy.subnet.mutables.container import MutableChannelContainer
from razordeploy.subnet.mutables.diff_module import DiffMutableOP
from razordeploy.subnet.mutables.one_shot_module import OneShotMutableOP
from razordeploy.subnet.mutables.value import OneShotMutableValue
from razordeploy.subnet.mutators.module import DiffModuleMutator, DynamicValueMutator, OneShotModuleMutator
from razordeploy.subnet.mutators.nas import NasMutator
from razordeploy.subnet.sub_model import sub_model

from ..nets import randomise


def _follow(op, inputs=None, outputs=None):
    for mutable, is_output in ((inputs, False), (outputs, True)):
        if mutable is not None:
            MutableChannelContainer.register_mutable_channel_to_module(op, mutable, is_output)
    return op


class Supernet(nn.Module):
    """Elastic width, expansion, kernel and depth, and a choice of operations: what the shipped supernets have."""

    def __init__(self):
        super().__init__()
        self.width = OneShotMutableChannel(8, [4, 6, 8])
        self.ratio = OneShotMutableValue([1, 2])
        self.kernel = OneShotMutableValue([1, 3])
        self.depth = OneShotMutableValue([1, 2], alias="how_deep")
        middle = self.width * self.ratio
        self.stem = _follow(BigNasConv2d(3, 8, 3, padding=1), outputs=self.width)
        self.stem.register_mutable_attr("kernel_size", self.kernel)
        self.norm = _follow(DynamicBatchNorm2d(8), outputs=self.width)
        self.up = _follow(BigNasConv2d(8, 16, 1), self.width, middle)
        links = [_follow(BigNasConv2d(16, 16, 1), middle, middle) for _ in range(2)]
        self.chain = DynamicSequential(*links)
        self.chain.register_mutable_attr("depth", self.depth)
        self.down = _follow(BigNasConv2d(16, 5, 1), middle)
        self.op = OneShotMutableOP({"three": nn.Conv2d(5, 5, 3, padding=1), "one": nn.Conv2d(5, 5, 1)})

    def forward(self, x):
        return self.op(self.down(self.chain(self.up(self.norm(self.stem(x)).relu()).relu())))


CHOICES = {"width": 6, "ratio": 2, "kernel": 1, "how_deep": 1, "op": "one"}


def _prepared():
    model = randomise(Supernet())
    mutator = NasMutator()
    mutator.prepare_from_supernet(model)
    return model, mutator


def test_groups_are_named_by_alias_or_path():
    model, mutator = _prepared()
    assert set(mutator.search_groups) == set(CHOICES)
    assert mutator.search_groups["how_deep"] == [model.depth]
    assert mutator.max_choices == {"width": 8, "ratio": 2, "kernel": 3, "how_deep": 2, "op": "three"}
    assert mutator.min_choices == {"width": 4, "ratio": 1, "kernel": 1, "how_deep": 1, "op": "one"}


def test_sampled_subnets_run_and_export():
    model, mutator = _prepared()
    x = torch.randn(2, 3, 6, 6)
    for _ in range(12):
        choices = mutator.sample_choices()
        mutator.set_choices(choices)
        assert mutator.current_choices == choices
        out = model(x)
        subnet, static = export_fix_subnet(model, slice_weight=True)
        torch.testing.assert_close(static(x), out, atol=1e-5, rtol=0)
        assert static.stem.weight.shape == (choices["width"], 3, choices["kernel"], choices["kernel"])
        assert len(static.chain) == choices["how_deep"]
        assert {key: value["chosen"] for key, value in subnet.items()} == choices
        assert all(set(value) == {"chosen"} for value in subnet.values())


def test_an_exported_subnet_fixes_another_supernet():
    model, mutator = _prepared()
    mutator.set_choices(CHOICES)
    subnet, static = export_fix_subnet(model, slice_weight=True)
    other = Supernet().eval()
    other.load_state_dict(model.state_dict(), strict=True)
    load_fix_subnet(other, subnet)
    x = torch.randn(1, 3, 6, 6)
    assert torch.equal(other(x), static(x))
    assert other.state_dict().keys() == static.state_dict().keys()
    with pytest.raises(ModelError, match="fixed already"):
        load_fix_subnet(other, subnet)


def test_prefixes_are_prefixes():
    # mmrazor's lstrip(prefix) takes characters off: 'backbone.' from 'backbone.conv' leaves 'v'.
    subnet = {key if key == "how_deep" else f"backbone.{key}": {"chosen": value} for key, value in CHOICES.items()}
    model = Supernet()
    load_fix_subnet(model, subnet, extra_prefix="backbone.")
    assert model.stem.weight.shape[0] == 6
    model = nn.ModuleDict({"backbone": Supernet()})
    bare = {key: {"chosen": value} for key, value in CHOICES.items()}
    load_fix_subnet(model, bare, prefix="backbone.")
    assert model["backbone"].stem.weight.shape[0] == 6
    with pytest.raises(ModelError, match="exclude each other"):
        load_fix_subnet(Supernet(), bare, prefix="a", extra_prefix="b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 5}, r"expected one of \[4, 6, 8\], got 5"),
        ({"width": 0}, "got 0"),
        ({"kernel": 5}, r"mutable 'kernel': expected one of \[1, 3\]"),
        ({"op": "two"}, "mutable 'op'"),
        ({"widht": 6}, "another model; did you mean 'width'"),
        ({"width": None}, "no choice for the mutable 'width'"),
    ],
)
def test_a_subnet_that_does_not_fit_fixes_nothing(change, message):
    subnet = {key: {"chosen": value} for key, value in {**CHOICES, **change}.items() if value is not None}
    model = Supernet()
    with pytest.raises(ModelError, match=message):
        load_fix_subnet(model, subnet)
    assert not model.kernel.is_fixed
    assert isinstance(model.stem, BigNasConv2d)


def test_custom_groups():
    mutator = NasMutator(custom_groups=[["kernel", "how_deep"]])
    with pytest.raises(ModelError, match="different choices"):
        mutator.prepare_from_supernet(Supernet())
    model = nn.ModuleList([OneShotMutableValue([1, 2], alias="a") for _ in range(2)] + [OneShotMutableValue([1, 2])])
    mutator = NasMutator()
    mutator.prepare_from_supernet(model)
    assert {name: len(members) for name, members in mutator.search_groups.items()} == {"a": 2, "2": 1}
    mutator = NasMutator(custom_groups=[["a", "2"]])
    mutator.prepare_from_supernet(model)
    mutator.set_choices({"a": 1})
    assert [value.current_choice for value in model] == [1, 1, 1]
    for groups, message in (([["b"]], "neither the alias nor the path"), ([["a"], ["0"]], "twice")):
        with pytest.raises(ModelError, match=message):
            NasMutator(custom_groups=groups).prepare_from_supernet(model)


def test_unknown_groups_are_refused():
    _, mutator = _prepared()
    before = mutator.current_choices
    with pytest.raises(ModelError, match="did you mean 'kernel'"):
        mutator.set_choices({"width": 4, "kernal": 1})
    assert mutator.current_choices == before


class Cell(nn.Module):
    """A node of a DARTS cell: two edges, each with two operations."""

    def __init__(self):
        super().__init__()
        edges = {f"n2_p{i}": DiffMutableOP(_operations(), alias=f"n2_p{i}") for i in range(3)}
        self.node = DiffChoiceRoute(nn.ModuleDict(edges), num_chosen=2, alias="n2")

    def forward(self, x):
        return self.node([x, x, x])


def _operations():
    return nn.ModuleDict({"conv": nn.Conv2d(2, 2, 3, padding=1), "skip": nn.Identity()})


def test_architecture_parameters_by_group():
    model = nn.Sequential(Cell(), Cell())
    mutator = DiffModuleMutator()
    mutator.prepare_from_supernet(model)
    with pytest.raises(ModelError, match="prepare_arch_params"):
        mutator.arch_params  # noqa: B018
    mutator.prepare_arch_params()
    assert {name: tuple(p.shape) for name, p in mutator.arch_params.items()} == {
        "n2": (3,),
        "n2_p0": (2,),
        "n2_p1": (2,),
        "n2_p2": (2,),
    }
    model(torch.randn(1, 2, 4, 4)).sum().backward()
    assert mutator.arch_param_of("n2_p0").grad.abs().sum() > 0
    # The route adds its edges up unless with_arch_param is set.
    assert mutator.arch_param_of("n2").grad is None
    mutator.arch_param_of("n2").data.copy_(torch.tensor([0.0, 2.0, 1.0]))
    mutator.arch_param_of("n2_p1").data.copy_(torch.tensor([0.0, 1.0]))
    choices = mutator.sample_choices()
    assert (choices["n2"], choices["n2_p1"]) == (["n2_p1", "n2_p2"], "skip")


def test_a_darts_file_of_the_predecessor_loads():
    # The form of its published DARTS_SUBNET_CIFAR_PAPER_ALIAS.yaml: aliases shared by the cells, lists of names, and
    # edges that the route drops.
    subnet = {
        "n2": {"chosen": ["n2_p1", "n2_p0"]},
        "n2_p0": {"chosen": ["conv"]},
        "n2_p1": {"chosen": ["skip"]},
        "n2_p2": {"chosen": ["skip"]},
    }
    model = nn.Sequential(Cell(), Cell())
    load_fix_subnet(model, subnet)
    for cell in model:
        assert cell.node.choices == ["n2_p0", "n2_p1"]
        assert cell.node._edges["n2_p0"].choices == ["conv"]
    assert model(torch.randn(1, 2, 4, 4)).shape == (1, 2, 4, 4)
    exported, _ = export_fix_subnet(nn.Sequential(_chosen(Cell()), _chosen(Cell())))
    assert exported == {key: {"chosen": value["chosen"]} for key, value in subnet.items()}


def _chosen(cell):
    cell.node.current_choice = ["n2_p1", "n2_p0"]
    for name, choice in (("n2_p0", ["conv"]), ("n2_p1", ["skip"]), ("n2_p2", ["skip"])):
        cell.node._edges[name].current_choice = choice
    return cell


def test_one_alias_two_choices_cannot_be_exported():
    model = nn.ModuleList([OneShotMutableValue([1, 2], alias="a") for _ in range(2)])
    model[0].current_choice = 1
    with pytest.raises(ModelError, match="both 1 and 2"):
        export_fix_subnet(model)
    with pytest.raises(ModelError, match="no current choice"):
        export_fix_subnet(nn.Sequential(OneShotMutableOP(_operations())))
    with pytest.raises(ModelError, match="no mutables to export"):
        export_fix_subnet(nn.Sequential(nn.ReLU()))


def test_mutators_of_one_kind():
    model = nn.ModuleList([Supernet(), Cell()])
    names = {}
    for kind in (OneShotModuleMutator, DiffModuleMutator, DynamicValueMutator):
        mutator = kind()
        mutator.prepare_from_supernet(model)
        names[kind] = set(mutator.search_groups)
    assert names[OneShotModuleMutator] == {"0.op"}
    assert names[DiffModuleMutator] == {"n2", "n2_p0", "n2_p1", "n2_p2"}
    assert names[DynamicValueMutator] == {"0.ratio", "0.kernel", "how_deep"}


def test_fix_choices_is_final():
    model, mutator = _prepared()
    mutator.fix_choices()
    assert model.kernel.is_fixed
    assert model.width.is_fixed
    with pytest.raises(ModelError, match="fixed already"):
        model.kernel.fix_chosen(1)


def test_sub_model_slices_the_supernets_weights():
    model, mutator = _prepared()
    mutator.set_choices(CHOICES)
    subnet, static = export_fix_subnet(model, slice_weight=True)
    state = model.state_dict()

    class Pretrained(Supernet):
        def init_weights(self):
            self.load_state_dict(state)

    x = torch.randn(1, 3, 6, 6)
    made = sub_model(Pretrained(), subnet, init_weight_from_supernet=True).eval()
    assert torch.equal(made(x), static(x))
    with pytest.raises(ModelError, match="give one"):
        sub_model(Pretrained(), subnet, init_weight_from_supernet=True, init_cfg={"type": "Normal"})
    with pytest.raises(ModelError, match="no init_weights"):
        sub_model(Supernet(), subnet, init_weight_from_supernet=True)
