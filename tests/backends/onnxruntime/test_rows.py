"""Linear layers of sequences run as QGemm on rows, whatever stands around them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import razordeploy as rd


class _Tokens(nn.Module):
    """Two layers on tokens; ``between`` stands between them, ``bias`` and the batch vary."""

    def __init__(self, between, bias=True, fixed=False):
        super().__init__()
        self.first, self.second = nn.Linear(16, 24, bias), nn.Linear(24, 8, bias)
        self.between, self.fixed = between, fixed

    def forward(self, x):
        if self.fixed:
            x = x.reshape(2, 5, 16)
        return self.second(self.between(self.first(x)))


_CASES = {
    "gelu": (nn.GELU(), True, False),
    "relu": (nn.ReLU(), True, False),
    "no bias": (nn.GELU(), False, False),
    "fixed batch": (nn.ReLU(), True, True),
    "straight on": (nn.Identity(), True, False),
    "window": (nn.Unflatten(1, (5, 1)), True, False),
}


@pytest.mark.parametrize("case", _CASES)
def test_runs_as_qgemm(case, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    torch.manual_seed(0)
    net = _Tokens(*_CASES[case]).eval()
    data = [torch.randn(2, 5, 16) for _ in range(4)]
    artifact = rd.ptq(net, data, example_inputs=(data[0],), backend="onnxruntime", out_dir=tmp_path)
    engine = rd.load_engine(artifact)
    assert _unread(artifact.file("engine")) == []
    kernels = Counter(op.type for op in engine.runner.runtime_ops())
    assert kernels["QGemm"] == 2, kernels
    assert engine.coverage().int8 == 2
    x = data[0]
    expected = net(x).detach().numpy()
    assert np.abs(engine(x.numpy()) - expected).max() < 0.05 * np.abs(expected).max()
    if not _CASES[case][2]:
        assert engine(torch.randn(7, 5, 16).numpy()).shape[0] == 7


def _unread(path):
    """Operations whose results nothing reads: ONNX Runtime runs them all the same."""
    graph = pytest.importorskip("onnx", reason="needs onnx").load(path).graph
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    return [node.name for node in graph.node if read.isdisjoint(node.output)]


def test_tokens_of_unknown_number_stay_products(tmp_path):
    """Only the batch may be unknown: other sizes would have to be computed at run time."""
    from razordeploy.backends.onnx_passes.rows import linear_on_rows

    ir = pytest.importorskip("onnx_ir", reason="needs onnx_ir")
    kinds = {"x": ir.DataType.UINT8, "w": ir.DataType.INT8, "s": ir.DataType.FLOAT}
    shapes = {"x": ["n", "t", 16], "w": [16, 8], "s": []}
    x, w, scale = (ir.Value(name=k, shape=ir.Shape(shapes[k]), type=ir.TensorType(kinds[k])) for k in "xws")
    pairs = [ir.node("DequantizeLinear", [v, scale]) for v in (x, w)]
    for pair in pairs:
        pair.outputs[0].shape = pair.inputs[0].shape
    product = ir.node("MatMul", [p.outputs[0] for p in pairs], name="product")
    graph = ir.Graph([x, w, scale], product.outputs, nodes=[*pairs, product], opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    linear_on_rows(model, rank=2, gemm=True)
    assert [n.op_type for n in model.graph] == ["DequantizeLinear", "DequantizeLinear", "MatMul"]
