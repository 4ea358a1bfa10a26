"""The short ways to a result's shape tell what the operator really returns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch._subclasses.fake_impls import get_fast_op_impls

from razordeploy.capture.export import export_program
from razordeploy.capture.fast_shapes import fast_shapes

ACTIVATIONS = ["hardtanh", "relu", "relu6", "hardswish", "silu", "leaky_relu", "gelu"]


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
    **{name: getattr(F, name) for name in ACTIVATIONS},
    **{f"{name} in place": _in_place(name) for name in ACTIVATIONS if name != "gelu"},
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


def test_torchs_table_is_as_before():
    before = dict(get_fast_op_impls())
    with fast_shapes():
        assert len(get_fast_op_impls()) > len(before)
    assert get_fast_op_impls() == before
