"""Placement as a pure function of a graph and a backend's rules; the rules here are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.config.backend_spec import BackendSpec, OpRule, TensorRule
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.quantization.placement import place
from razordeploy.quantization.qconfig import settings_for

_X = (2, 4, 6, 6)
_CONV = OpRule(inputs=(0,), weight=1)
_ADD = OpRule(inputs=(0, 1), join=True)


def _spec(ops, **options):
    options = {"fused_activations": ("relu",), **options}
    weight = TensorRule(signed=True, symmetric=True, per_channel=True)
    return BackendSpec(name="made_up", summary="", extra="none", ops=ops, weight=weight, **options)


class _Net(nn.Module):
    def __init__(self, body, layers=4):
        super().__init__()
        self.body = body
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(layers))

    def forward(self, x):
        return self.body(x, *self.layers)


def _plan(body, ops, config=None, **options):
    spec = _spec(ops, **options)
    captured = capture(_Net(body), (torch.randn(_X),))
    return place(captured, spec, settings_for(spec, config or QuantizeConfig()))


def _activations(plan):
    return {p.node: p.users for p in plan.points if p.kind == "activation"}


def _int8(plan):
    return [op.node for op in plan.ops if op.int8]


def test_a_weighted_operation_asks_for_its_input_and_weight():
    plan = _plan(lambda x, a, *_: a(x), {"conv2d": _CONV})
    assert _activations(plan) == {"x": ("conv2d",)}
    assert [(p.users, p.scheme.ch_axis) for p in plan.points if p.kind == "weight"] == [(("conv2d",), 0)]


def test_no_rule_no_int8():
    plan = _plan(lambda x, a, *_: a(x), {})
    assert not plan.points
    assert [(op.int8, op.reason) for op in plan.ops] == [(False, "no int8 rule in the backend's YAML")]


def test_the_backends_reason_comes_before_the_default_one():
    plan = _plan(lambda x, a, *_: a(x), {}, float_reasons={"conv2d": "no kernel"})
    assert plan.ops[0].reason == "no kernel"


def test_a_fused_activation_has_no_pair_before_it():
    plan = _plan(lambda x, a, b, *_: b(F.relu(a(x))), {"conv2d": _CONV})
    assert set(_activations(plan)) == {"x", "relu"}
    assert "relu" not in [op.node for op in plan.ops]


def test_an_activation_that_is_not_fused_stays_float_and_is_named():
    plan = _plan(lambda x, a, b, *_: b(F.silu(a(x))), {"conv2d": _CONV})
    assert set(_activations(plan)) == {"x", "silu"}
    assert [op.node for op in plan.ops if not op.int8] == ["silu"]


def test_an_activation_behind_a_value_with_two_readers_is_not_fused():
    def body(x, a, b, *_):
        y = a(x)
        return b(F.relu(y)) + y

    plan = _plan(body, {"conv2d": _CONV})
    assert "relu" in [op.node for op in plan.ops if not op.int8]


def test_an_operation_that_needs_a_quantized_output_gets_it_behind_its_activation():
    plan = _plan(
        lambda x, a, *_: F.relu(a(x)), {"conv2d": OpRule(inputs=(0,), weight=1, output=True)}, share_with_float=True
    )
    assert _activations(plan) == {"x": ("conv2d",), "relu": ("output",)}


def test_a_shared_output_serves_float_readers_too():
    def body(x, a, b, *_):
        y = a(x)
        return b(y), F.silu(y)

    ops = {"conv2d": OpRule(inputs=(0,), weight=1, output=True)}
    assert set(_activations(_plan(body, ops, share_with_float=True))["conv2d"]) == {"conv2d_1", "silu"}
    assert _activations(_plan(body, {"conv2d": _CONV}))["conv2d"] == ("conv2d_1",)


@pytest.mark.parametrize(
    ("body", "joined"),
    [
        (lambda x, a, b, c, *_: c(a(x) + b(a(x))), True),
        (lambda x, a, b, *_: a(x) + b(F.silu(x)), False),
        (lambda x, a, b, *_: b(a(x) + F.silu(x)), False),
        (lambda x, a, b, *_: b(a(x) + x), True),
        (lambda x, a, b, c, d: d((a(x) + b(a(x))) + c(a(x).relu())), True),
    ],
    ids=["between", "at the end", "float operand", "int8 input", "chain"],
)
def test_a_join_needs_int8_on_both_sides(body, joined):
    plan = _plan(body, {"conv2d": _CONV, "add": _ADD})
    assert ("add" in _int8(plan)) is joined
    if not joined:
        assert "both sides" in next(op.reason for op in plan.ops if op.node == "add")


def test_a_constant_operand_keeps_an_operation_float_where_the_rule_says_so():
    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.offset = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Parameter(torch.randn(4, 1, 1))

        def forward(self, x):
            return self.b(F.relu(self.a(x)) + self.offset)  # behind a convolution it would be its bias

    captured = capture(Offset(), (torch.randn(_X),))
    for constants in (False, True):
        spec = _spec({"conv2d": _CONV, "add": OpRule(inputs=(0, 1), join=True, constants=constants)})
        plan = place(captured, spec, settings_for(spec, QuantizeConfig()))
        assert ("add" in _int8(plan)) is constants


@pytest.mark.parametrize("in_place", [False, True])
def test_sum_in_place_leaves_the_last_convolution_of_an_addition_as_it_is(in_place):
    def body(x, a, b, c, *_):
        x = F.relu(a(x))
        return c(x + b(x))

    plan = _plan(body, {"conv2d": _CONV, "add": OpRule(inputs=(0, 1), join=True, sum_in_place=in_place)})
    assert set(_activations(plan)) == {"x", "relu", "add"} | (set() if in_place else {"conv2d_1"})
    assert "add" in _int8(plan)


def _branch(x, a, b, c, d):
    x = F.relu(a(x))
    return d(x + c(b(x)))


def _over_its_own_input(x, a, b, c, d):
    x = F.relu(a(x))
    return d(x + b(x))


def _over_a_later_input(x, a, b, c, d):
    x = F.relu(a(x))
    return d(x + b(F.relu(c(x)))), d(x)


def _over_a_later_pooled_input(x, a, b, c, d):
    x = F.relu(a(x))
    return d(x + b(F.relu(c(x)))), d(F.max_pool2d(x, 2))


def _over_an_input_that_float_readers_keep(x, a, b, c, d):
    x = F.relu(a(x))
    return d(x + b(F.relu(c(x)))), F.silu(x)


@pytest.mark.parametrize(
    ("body", "hosted"),
    [
        (_branch, True),
        (_over_its_own_input, False),
        (_over_a_later_input, False),
        (_over_a_later_pooled_input, False),
        (_over_an_input_that_float_readers_keep, True),
    ],
)
def test_a_sum_that_only_runs_in_place_may_not_overwrite_what_others_read(body, hosted):
    add = OpRule(inputs=(0, 1), join=True, sum_in_place=True, only_in_place=True)
    plan = _plan(body, {"conv2d": _CONV, "add": add}, same_grid=("max_pool",))
    (found,) = (op for op in plan.ops if op.kind == "add")
    assert found.int8 is hosted
    assert hosted or "whose kernel could add" in found.reason
    # A float addition reads floats.
    assert ("add" in _activations(plan)["relu"]) is hosted


@pytest.mark.parametrize("adds", [False, True])
def test_a_kernel_that_cannot_add_takes_no_sum(adds):
    add = OpRule(inputs=(0, 1), join=True, sum_in_place=True, only_in_place=True)
    plan = _plan(_branch, {"conv2d": OpRule(inputs=(0,), weight=1, adds=adds), "add": add})
    assert ("add" in _int8(plan)) is adds


def test_a_request_climbs_to_where_the_grid_begins():
    plan = _plan(lambda x, a, b, *_: b(F.max_pool2d(a(x), 2)), {"conv2d": _CONV}, same_grid=("max_pool",))
    assert _activations(plan) == {"x": ("conv2d",), "conv2d": ("max_pool2d",)}
    assert "max_pool2d" not in [op.node for op in plan.ops]


def test_a_grid_is_written_again_where_the_backend_asks_and_shares_its_scale():
    plan = _plan(
        lambda x, a, b, *_: b(F.max_pool2d(a(x), 2)),
        {"conv2d": _CONV},
        same_grid=("max_pool",),
        requantize_same_grid=True,
    )
    pair = [p for p in plan.points if p.node in {"conv2d", "max_pool2d"}]
    assert len({p.group for p in pair}) == 1
    assert {p.node: p.observed for p in pair} == {"conv2d": True, "max_pool2d": False}


def test_a_climb_through_a_split_puts_one_grid_on_its_input():
    def body(x, a, *_):
        left, right = a(x).split(2, 1)
        return F.conv2d(left, torch.ones(4, 2, 1, 1)) + F.conv2d(right, torch.ones(4, 2, 1, 1))

    plan = _plan(body, {"conv2d": _CONV}, same_grid=("split", "slice"))
    assert set(_activations(plan)) == {"x", "conv2d"}
    assert _activations(plan)["conv2d"] == ("split",)


def test_unified_inputs_of_a_concatenation_share_one_group():
    def body(x, a, b, *_):
        return F.conv2d(torch.cat([a(x), b(x)], 1), torch.ones(4, 8, 1, 1))

    unified = [p.group for p in _plan(body, {"conv2d": _CONV}, unify=("cat",)).points if p.users == ("cat",)]
    assert len(unified) == 2 and len(set(unified)) == 1
    assert "cat" in _activations(_plan(body, {"conv2d": _CONV}))


@pytest.mark.parametrize(("clips", "groups"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("act", [F.relu, F.relu6])
def test_a_clipped_value_shares_no_grid_where_the_grid_clips(act, clips, groups):
    def body(x, a, b, *_):
        return F.conv2d(torch.cat([act(a(x)), b(x)], 1), torch.ones(4, 8, 1, 1))

    options = {"unify": ("cat",), "grid_clips": clips, "fused_activations": ("relu", "relu6")}
    rule = replace(_CONV, output=True)
    points = _plan(body, {"conv2d": rule}, share_with_float=True, **options).points
    found = {p.group for p in points if "cat" in p.users}
    assert len(found) == groups, found


def test_dense_chains_are_not_unified():
    def body(x, a, b, *_):
        y = a(x)
        first = torch.cat([x, y], 1)
        z = F.conv2d(first, torch.ones(4, 8, 1, 1))
        return F.conv2d(torch.cat([x, y, z], 1), torch.ones(4, 12, 1, 1))

    groups = {p.node: p.group for p in _plan(body, {"conv2d": _CONV}, unify=("cat",)).points if p.kind == "activation"}
    assert {"cat", "cat_1"} <= set(groups) and groups["cat"] != groups["cat_1"]


def test_a_module_that_the_recipe_skips_says_so():
    plan = _plan(lambda x, a, b, *_: b(a(x)), {"conv2d": _CONV}, QuantizeConfig(skip=("layers.1",)))
    assert _int8(plan) == ["conv2d"]
    assert "layers.1" in next(op.reason for op in plan.ops if op.node == "conv2d_1")


def test_a_weight_from_run_time_stays_float():
    plan = _plan(lambda x, a, *_: F.conv2d(a(x), a(x).mean((0, 2, 3)).reshape(1, 4, 1, 1)), {"conv2d": _CONV})
    assert [op.reason for op in plan.ops if op.kind == "conv2d" and not op.int8] == [
        "its weight is computed at run time"
    ]


def test_a_shared_weight_is_one_point():
    plan = _plan(lambda x, a, *_: a(a(x)), {"conv2d": _CONV})
    assert [p.users for p in plan.points if p.kind == "weight"] == [("conv2d", "conv2d_1")]


def test_plans_do_not_depend_on_the_run():
    def body(x, a, b, c, *_):
        return c(a(x) + b(x))

    ops = {"conv2d": _CONV, "add": _ADD}
    assert _plan(body, ops) == _plan(body, ops)


@pytest.mark.parametrize("again", [False, True])
def test_a_part_of_a_float_value_has_a_grid_of_its_own(again):
    def body(x, a, b, *_):
        written = a(x)
        return b(torch.tanh(x)[:, :, 1:]) + b(written[:, :, 1:])

    plan = _plan(body, {"conv2d": _CONV}, same_grid=("slice",), requantize_same_grid=again)
    found = _activations(plan)
    assert "tanh" not in found
    assert found["slice_2"] == ("conv2d_1",)
    groups = {p.node: p.group for p in plan.points}
    assert groups["slice_2"] == "slice_2"
    assert found["conv2d"] == ("slice_3",)


def test_a_pool_of_float_values_comes_first_where_the_backend_says_so():
    def body(x, a, b, *_):
        return b(F.max_pool2d(torch.tanh(x), 2)) + b(F.max_pool2d(a(x), 2))

    usual = _activations(_plan(body, {"conv2d": _CONV}, same_grid=("max_pool",)))
    first = _activations(_plan(body, {"conv2d": _CONV}, same_grid=("max_pool",), float_first=("max_pool",)))
    assert usual.keys() - first.keys() == {"tanh"} and first.keys() - usual.keys() == {"max_pool2d"}
    assert first["conv2d_1"] == ("max_pool2d_1",)


def test_a_concatenation_of_float_values_is_where_a_grid_begins():
    def body(x, a, b, *_):
        floats = F.conv2d(torch.cat([torch.tanh(x), torch.sin(x)], 1), torch.ones(4, 8, 1, 1))
        return floats + F.conv2d(torch.cat([a(x), torch.sin(x)], 1), torch.ones(4, 8, 1, 1))

    found = _activations(_plan(body, {"conv2d": _CONV}, unify=("cat",)))
    assert found["cat"] == ("conv2d",) and "tanh" not in found
    assert found["conv2d_1"] == ("cat_1",) and found["sin_1"] == ("cat_1",)


@pytest.mark.parametrize("through", ["move", "concatenation"])
def test_a_value_read_through_one_operation_has_one_grid(through):
    """One reader wants zero point 0: the other, which comes first, takes it too."""

    def body(x, a, b, *_):
        written = torch.transpose(a(x), 2, 3) if through == "move" else torch.cat([a(x), b(x)], 1)[:, :4]
        return b(written), written @ written

    ops = {"conv2d": _CONV, "matmul": OpRule(inputs=(0, 1))}
    spec = _spec(ops, same_grid=("transpose", "slice"), unify=("cat",))
    usual = settings_for(spec, QuantizeConfig())

    def settings(node, kind, rule):
        found = usual(node, kind, rule)
        if kind != "matmul":
            return found
        return replace(found, activation=replace(found.activation, signed=True, symmetric=True))

    plan = place(capture(_Net(body), (torch.randn(_X),)), spec, settings)
    found = [(p.users, p.scheme.symmetric) for p in plan.points if p.kind == "activation" and p.node != "x"]
    reader = "transpose" if through == "move" else "cat"
    assert set(found) == {((reader,), True)}
