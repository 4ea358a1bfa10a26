"""What the report says of every operation, on graphs and engines whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.backends.base import Backend, RuntimeOp
from razordeploy.backends.node_map import node_records
from razordeploy.capture.export import capture
from razordeploy.config.backend_spec import BackendSpec, OpRule, TensorRule
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.quantization.placement import place
from razordeploy.quantization.qconfig import settings_for

WEIGHT = TensorRule(signed=True, symmetric=True, per_channel=True)
SPEC = BackendSpec(
    name="made_up",
    summary="",
    extra="none",
    weight=WEIGHT,
    ops={"conv2d": OpRule(inputs=(0,), weight=1), "linear": OpRule(inputs=(0,), weight=1)},
    same_grid=("max_pool",),
    unify=("cat",),
    fused_activations=("relu",),
    float_reasons={"softmax": "by choice"},
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.other = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.cat([nn.functional.max_pool2d(self.stem(x), 6), nn.functional.max_pool2d(self.other(x), 6)], 1)
        first, second = torch.exp(x).flatten(1).split(4, 1)
        return torch.softmax(self.head(torch.stack([first, second], 1).flatten(1)), 1)


KERNELS = [
    RuntimeOp(name="conv2d", type="Convolution", precision="u8", origins=("relu",)),
    RuntimeOp(name="conv2d_1", type="Convolution", precision="f32"),
    RuntimeOp(name="softmax", type="SoftMax", precision="f32"),
]


@pytest.fixture(scope="module")
def captured():
    return capture(Net().eval(), (torch.randn(2, 3, 8, 8),))


def records(captured, kernels=KERNELS, spec=SPEC, **options):
    backend = Backend(spec=spec, plan=None, export=None, load=None, **options)
    plan = place(captured, spec, settings_for(spec, QuantizeConfig()))
    return node_records(captured, plan, backend, kernels)


def test_every_operation_in_the_order_it_runs(captured):
    found = records(captured)
    computing = [n.name for n in captured.graph.nodes if n.op == "call_function" and "getitem" not in n.name]
    assert [r["node"] for r in found] == computing
    assert [(r["op"], r["state"], r.get("reason")) for r in found] == [
        ("conv2d", "int8", None),
        ("relu", "fused", None),
        ("max_pool", "moves", None),
        ("conv2d", "float", "planned as int8, but the engine runs Convolution in f32"),
        ("max_pool", "moves", None),
        ("cat", "moves", None),
        ("exp", "float", "no int8 rule in the backend's YAML"),
        ("reshape", "moves", None),
        ("split", "moves", None),
        ("stack", "moves", None),
        ("reshape", "moves", None),
        ("linear", "float", "the engine's graph does not name it: it was folded away or merged"),
        ("softmax", "float", "by choice"),
    ]
    assert [r["node"] for r in found if r.get("planned")] == ["conv2d_1", "linear"]
    assert [r["module"] for r in found[:4]] == ["stem.0", "stem.1", "", "other"]
    assert {r["node"]: r["kernel"] for r in found if "kernel" in r} == {
        "conv2d": "Convolution in u8",
        "relu": "Convolution in u8",
        "conv2d_1": "Convolution in f32",
        "softmax": "SoftMax in f32",
    }


def test_an_activation_follows_the_operation_that_it_runs_in(captured):
    (relu,) = (r for r in records(captured, kernels=[]) if r["op"] == "relu")
    assert (relu["state"], relu["reason"]) == ("float", "runs inside the operation before it, which is float")
    own = [KERNELS[0], RuntimeOp(name="relu", type="ReLU", precision="f32")]
    own[0] = RuntimeOp(name="conv2d", type="Convolution", precision="u8")
    (relu,) = (r for r in records(captured, kernels=own) if r["op"] == "relu")
    assert (relu["state"], relu["planned"]) == ("float", True)
    assert relu["reason"] == "planned inside conv2d, but the engine runs ReLU in f32"


def test_a_simulation_is_not_called_int8(captured):
    found = records(captured, kernels=[], simulated_only=True)
    assert [r["state"] for r in found if r["op"] in ("conv2d", "linear")] == ["simulated"] * 3
    assert not [r for r in found if r["state"] == "int8"]


def test_views_move_values_whatever_the_rules_name(captured):
    bare = BackendSpec(name="bare", summary="", extra="none", weight=WEIGHT, ops=SPEC.ops)
    states = {r["op"]: r["state"] for r in records(captured, spec=bare)}
    assert (states["reshape"], states["split"]) == ("moves", "moves")
    assert states["max_pool"] == "float"
