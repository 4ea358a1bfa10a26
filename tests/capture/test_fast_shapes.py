"""The short ways to a result's shape tell what the operator really returns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch._subclasses.fake_impls import get_fast_op_impls

from razordeploy.capture.export import export_program
from razordeploy.capture.fast_shapes import fast_shapes
from razordeploy.errors import ModelError

ACTIVATIONS = ["hardtanh", "relu", "relu6", "hardswish", "silu", "leaky_relu", "gelu", "sigmoid", "tanh"]


class _Values(fx.Interpreter):
    """Runs a graph and holds every value against the one that the export recorded."""

    def run_node(self, n):
        value = super().run_node(n)
        told = n.meta.get("val")
        if n.op == "call_function" and isinstance(told, torch.Tensor):
            known = [size if isinstance(size, int) else None for size in told.shape]
            assert [None if k is None else size for k, size in zip(known, value.shape, strict=True)] == known, n
            assert told.dtype == value.dtype, n
            for layout in (torch.contiguous_format, torch.channels_last)[: 1 + (told.dim() == 4)]:
                assert told.is_contiguous(memory_format=layout) == value.is_contiguous(memory_format=layout), n
        return value


class _Net(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


def _in_place(name):
    return lambda x: getattr(F, name)(x + 1, inplace=True)


BODIES = {
    "batch norm": nn.BatchNorm2d(6),
    "batch norm without weights": nn.BatchNorm2d(6, affine=False),
    "layer norm": nn.LayerNorm((5, 7)),
    "layer norm without weights": lambda x: F.layer_norm(x, (7,)),
    "layer norm of another layout": lambda x: F.layer_norm(x.transpose(1, 3), (6,)),
    "transposed": lambda x: F.hardtanh(x.transpose(1, 2)),
    "clamp_": lambda x: (x * 2).clamp_(0, 1),
    "whole numbers": lambda x: F.hardtanh(x.to(torch.int64), -1, 1),
    "linear": nn.Linear(7, 3),
    "linear without a bias": nn.Linear(7, 3, bias=False),
    "linear on another layout": lambda x: F.linear(x.transpose(1, 3), torch.ones(4, 6)),
    "linear on rows": lambda x: F.linear(x.flatten(1), torch.ones(4, 210)),
    "linear by its operator": lambda x: torch.ops.aten.linear.default(x, torch.ones(4, 7)),
    "products": lambda x: x @ x.transpose(2, 3),
    "products by their operator": lambda x: torch.ops.aten.matmul.default(x, x.transpose(2, 3)),
    "products of another layout": lambda x: x.transpose(1, 2).transpose(2, 3) @ x.permute(0, 2, 1, 3),
    "product with one matrix": lambda x: x @ torch.ones(7, 2),
    "product with one batch for all": lambda x: x @ torch.ones(1, 6, 7, 2),
    **{name: getattr(F, name) for name in ACTIVATIONS},
    **{f"{name} in place": _in_place(name) for name in ACTIVATIONS if name not in {"gelu", "sigmoid", "tanh"}},
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", BODIES)
def test_the_shape_told_is_the_shape_made(name, layout):
    net = _Net(BODIES[name]).eval()
    x = torch.randn(2, 6, 5, 7).contiguous(memory_format=layout)
    exported = export_program(net, (x,))
    assert exported.dynamic_batch
    with torch.no_grad():
        _Values(exported.program.module(check_guards=False)).run(x)


def test_torchs_tables_are_as_before():
    before, linear = dict(get_fast_op_impls()), torch.ops.aten.linear.default
    call, number = linear._op, hash(linear)
    with fast_shapes():
        assert len(get_fast_op_impls()) > len(before)
        assert linear._op is not call and hash(linear) == number
    assert get_fast_op_impls() == before
    assert linear._op is call


def test_products_of_sizes_that_do_not_fit_are_torchs_to_refuse():
    with pytest.raises(ModelError, match="does not run on the example inputs"):
        export_program(nn.Linear(8, 3), (torch.randn(2, 7),))
