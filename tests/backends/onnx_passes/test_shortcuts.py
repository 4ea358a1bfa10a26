"""The short way through the ONNX exporter gives what the long way gives, and is the one that is taken."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.config.backend_spec import BackendSpec, OpRule, TensorRule
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.quantization.placement import place
from razordeploy.quantization.qconfig import settings_for

ir = pytest.importorskip("onnx_ir", reason="needs onnx_ir")
pytest.importorskip("onnxscript", reason="needs onnxscript")

from razordeploy.backends.onnx_passes import export as onnx_export  # noqa: E402
from razordeploy.backends.onnx_passes.program import exported_program  # noqa: E402

_SPEC = BackendSpec(
    name="made_up",
    summary="",
    extra="none",
    ops={"conv2d": OpRule(inputs=(0,), weight=1), "linear": OpRule(inputs=(0,), weight=1)},
    weight=TensorRule(signed=True, symmetric=True, per_channel=True),
)


class _Tokens(nn.Module):
    """Reshapes that depend on the batch, whole numbers as operands, two outputs, a shared weight."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(8, 8)
        self.register_buffer("place", torch.randn(1, 16, 8))

    def forward(self, x):
        n = x.shape[0]
        tokens = self.conv(x).reshape(n, 8, 16).transpose(1, 2) * 2 + self.place
        heads = self.fc(tokens).reshape(n, 16, 2, 4).permute(0, 2, 1, 3)
        scores = F.softmax(heads @ heads.transpose(-2, -1) / 2, -1)
        tokens = (scores @ heads).transpose(1, 2).reshape(n, 16, 8)
        return self.fc(tokens).mean(1), scores.amax(-1)


class _Mixed(nn.Module):
    """Integer tensors that meet floats: the exporter has to convert them."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x) + x.argmax(1, keepdim=True) * 0.5 + (x > 0)


class _Decomposed(nn.Module):
    """An operator that ONNX has no form of: the exporter has to take it apart."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return F.softshrink(self.fc(x))


def _exported(model, x, *, traced, monkeypatch):
    captured = capture(model.eval(), (x,))
    plan = place(captured, _SPEC, settings_for(_SPEC, QuantizeConfig()))
    traces = []
    with monkeypatch.context() as patch:
        if traced:
            patch.setattr(onnx_export, "exported_program", lambda *args: 1 / 0)
        export = torch.export.export
        patch.setattr(torch.export, "export", lambda *a, **k: traces.append(1) or export(*a, **k))
        return onnx_export.export_marked(captured, [plan], opset=20), len(traces)


def _described(marked):
    """Operations with their names, operands, shapes and types; values are numbered, constants stand for themselves."""
    symbols: dict[str, str] = {}
    values: dict[str, str] = {}

    def name(value):
        constant = None if value is None else ir.convenience.get_const_tensor(value)
        if value is None or constant is not None:
            return constant and (str(constant.dtype), constant.numpy().tolist())
        return values.setdefault(value.name, f"v{len(values)}")

    def shape(value):
        return re.sub(r"s\d+", lambda m: symbols.setdefault(m[0], f"s{len(symbols)}"), str(value.shape))

    graph = marked.model.graph
    nodes = [
        (n.op_type, [name(i) for i in n.inputs], [(name(o), shape(o), o.dtype) for o in n.outputs])
        for n in graph
        if n.op_type != "Constant"
    ]
    names = [n.name for n in graph if not re.search(r"\.\w+\.\d+$", n.name)]
    marks = {values[k]: edge for k, edge in marked.marks.items()}
    return nodes, names, marks, [v.name for v in (*graph.inputs, *graph.outputs)]


@pytest.mark.parametrize(("model", "shape"), [(_Tokens, (2, 3, 8, 8)), (_Mixed, (2, 4))])
def test_both_ways_give_the_same_model_and_only_one_traces(model, shape, monkeypatch):
    torch.manual_seed(0)
    net, x = model(), torch.randn(shape)
    short, traces = _exported(net, x, traced=False, monkeypatch=monkeypatch)
    assert traces == 0
    long, traces = _exported(net, x, traced=True, monkeypatch=monkeypatch)
    assert traces == 1
    assert _described(short) == _described(long)


def test_a_graph_that_has_to_be_decomposed_takes_the_long_way(monkeypatch):
    marked, traces = _exported(_Decomposed(), torch.randn(2, 4), traced=False, monkeypatch=monkeypatch)
    assert traces == 1
    assert {"Where", "Gemm"} <= {n.op_type for n in marked.model.graph}


def test_the_exporter_is_as_it_was_afterwards(monkeypatch):
    from torch.onnx._internal.exporter import _fx_passes, _registration

    before = (_registration.ONNXRegistry.from_torchlib.__func__, *vars(_fx_passes).values())
    _exported(_Mixed(), torch.randn(2, 4), traced=False, monkeypatch=monkeypatch)
    assert (_registration.ONNXRegistry.from_torchlib.__func__, *vars(_fx_passes).values()) == before


def test_a_node_without_a_value_is_refused():
    captured = capture(_Mixed().eval(), (torch.randn(2, 4),))
    next(n for n in captured.graph.nodes if n.op == "call_function").meta.pop("val")
    with pytest.raises(ValueError, match="no recorded value"):
        exported_program(captured.graph_module, captured.example_inputs)
