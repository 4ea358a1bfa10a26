"""The shared ONNX export: marks, names, pairs at the plan's points and nowhere else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.config.backend_spec import BackendSpec, OpRule, TensorRule
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.errors import BackendError
from razordeploy.quantization.placement import place
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.qparams import quantize
from razordeploy.quantization.statistics import collect, resolve

onnx = pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnxscript", reason="needs onnxscript")

from razordeploy.backends.onnx_passes.export import export_marked  # noqa: E402
from razordeploy.backends.onnx_passes.qdq import float_model, quantized_model  # noqa: E402
from razordeploy.backends.onnx_passes.simplify import MARK  # noqa: E402


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(4, 6, 3), nn.Conv2d(6, 6, 1, bias=False), nn.Linear(6, 5)

    def forward(self, x):
        y = F.relu(self.a(x))
        return self.fc((self.b(y) + y).mean([2, 3]))


_X = (2, 4, 6, 6)


def _rules(output=False):
    return {
        "conv2d": OpRule(inputs=(0,), weight=1, output=output),
        "linear": OpRule(inputs=(0,), weight=1),
        "add": OpRule(inputs=(0, 1), join=True, output=output),
    }


def _spec(name="made_up", output=False, **options):
    weight = TensorRule(signed=True, symmetric=True, symmetric_range=True, per_channel=True)
    options = {"fused_activations": ("relu",), "share_with_float": output, **options}
    return BackendSpec(name=name, summary="", extra="none", ops=_rules(output), weight=weight, **options)


def _prepared(model, *specs, shape=_X):
    torch.manual_seed(0)
    model, x = model.eval(), torch.randn(shape)
    captured = capture(model, (x,))
    plans = [place(captured, s, settings_for(s, QuantizeConfig())) for s in specs]
    statistics = collect(captured, plans, [(x,)])
    return captured, plans, [resolve(captured, p, statistics) for p in plans]


def _counts(model):
    return Counter(n.op_type for n in model.graph)


def _proto(model):
    import onnx_ir as ir

    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return proto


def _run(model, *arrays):
    from onnx.reference import ReferenceEvaluator

    proto = _proto(model)
    return ReferenceEvaluator(proto).run(None, dict(zip([i.name for i in proto.graph.input], arrays, strict=True)))


def test_every_edge_of_every_plan_has_one_mark():
    captured, plans, _ = _prepared(_Net(), _spec(), _spec("other", output=True))
    marked = export_marked(captured, plans, opset=20)
    edges = {(p.node, user) for plan in plans for p in plan.points for user in p.users}
    assert set(marked.marks.values()) == edges
    assert len(marked.marks) == len(edges)
    assert sum((n.domain, n.op_type) == MARK for n in marked.model.graph) == len(edges)


def test_the_float_twin_has_no_marks_and_the_models_numbers():
    captured, plans, _ = _prepared(_Net(), _spec())
    twin = float_model(export_marked(captured, plans, opset=20))
    assert not {"QuantizeLinear", "DequantizeLinear", "Mark", "Identity"} & set(_counts(twin))
    x = torch.randn(3, 4, 6, 6)
    with torch.no_grad():
        want = captured.graph_module(x).numpy()
    np.testing.assert_allclose(_run(twin, x.numpy())[0], want, rtol=1e-4, atol=1e-5)


def test_one_export_serves_two_plans_and_is_left_as_it_was():
    captured, plans, params = _prepared(_Net(), _spec(), _spec("other", output=True))
    marked = export_marked(captured, plans, opset=20)
    before = _counts(marked.model)
    for plan, grids in zip(plans, params, strict=True):
        kinds = Counter(p.kind for p in plan.points)
        found = _counts(quantized_model(marked, plan, grids))
        assert found["QuantizeLinear"] == kinds["activation"]
        assert found["DequantizeLinear"] == kinds["activation"] + kinds["weight"]
    assert len(plans[0].points) != len(plans[1].points)
    assert _counts(marked.model) == before


def test_operations_are_named_after_the_captured_graph():
    captured, plans, params = _prepared(_Net(), _spec())
    model = quantized_model(export_marked(captured, plans, opset=20), plans[0], params[0])
    by_name = {n.name: n.op_type for n in model.graph}
    assert len(by_name) == len(list(model.graph))
    mean = next(n.name for n in captured.graph.nodes if n.op == "call_function" and "mean" in str(n.target))
    expected = {"conv2d": "Conv", "conv2d_1": "Conv", "add": "Add", "linear": "Gemm", mean: "GlobalAveragePool"}
    assert {k: by_name.get(k) for k in expected} == expected


def test_repeated_layers_are_not_mixed_up():
    net = nn.Sequential(*[nn.Conv2d(4, 4, k, padding="same") for k in (1, 3, 5)])
    captured, plans, params = _prepared(net, _spec())
    model = quantized_model(export_marked(captured, plans, opset=20), plans[0], params[0])
    kernels = {n.name: n.inputs[1].shape[-1] for n in model.graph if n.op_type == "Conv"}
    assert kernels == {"conv2d": 1, "conv2d_1": 3, "conv2d_2": 5}


def test_weights_are_stored_as_integers_along_the_output_channel():
    captured, plans, params = _prepared(_Net(), _spec())
    model = quantized_model(export_marked(captured, plans, opset=20), plans[0], params[0])
    by_name = {n.name: n for n in model.graph}
    for op, layer in (("conv2d", "a"), ("linear", "fc")):
        dequantize = by_name[op].inputs[1].producer()
        assert dequantize.op_type == "DequantizeLinear" and dequantize.attributes.get_int("axis") == 0
        point = next(p for p in plans[0].points if p.kind == "weight" and op in p.users)
        stored = dequantize.inputs[0].const_value.numpy()
        weight = captured.graph_module.get_parameter(f"{layer}.weight").detach()
        assert stored.dtype == np.int8
        np.testing.assert_array_equal(stored, quantize(weight, params[0][point.group]).numpy())


@pytest.mark.parametrize("bias", ["float", "int32"])
def test_biases(bias):
    captured, plans, params = _prepared(_Net(), _spec(bias=bias))
    model = quantized_model(export_marked(captured, plans, opset=20), plans[0], params[0])
    conv = next(n for n in model.graph if n.name == "conv2d")
    producer = conv.inputs[2].producer()
    if bias == "float":
        assert producer is None
        return
    integers, scale = (producer.inputs[i].const_value.numpy() for i in (0, 1))
    groups = {p.kind: params[0][p.group] for p in plans[0].points if "conv2d" in p.users}
    assert integers.dtype == np.int32
    np.testing.assert_allclose(scale, groups["activation"].scale.numpy() * groups["weight"].scale.numpy(), rtol=1e-6)
    want = captured.graph_module.get_parameter("a.bias").detach().numpy()
    np.testing.assert_allclose(integers * scale, want, atol=scale.max() / 2)


def test_a_bias_too_large_for_an_integer_stays_float():
    net = nn.Sequential(nn.Conv2d(4, 4, 1))
    net[0].bias.data.fill_(3e6)
    net[0].weight.data.mul_(1e-4)
    captured, plans, params = _prepared(net, _spec(bias="int32"))
    model = quantized_model(export_marked(captured, plans, opset=20), plans[0], params[0])
    assert next(n for n in model.graph if n.op_type == "Conv").inputs[2].producer() is None


def test_a_pair_is_shared_by_its_readers():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.a(x) * self.b(x)

    captured, plans, params = _prepared(Two(), _spec())
    found = _counts(quantized_model(export_marked(captured, plans, opset=20), plans[0], params[0]))
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 3)


class _ManyOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.a(x)
        return y, F.silu(y), y, x


def test_outputs_keep_their_names_order_and_values():
    captured, plans, params = _prepared(_ManyOutputs(), _spec(output=True))
    names = ["first", "second", "again", "input"]
    marked = export_marked(captured, plans, opset=20, input_names=["image"], output_names=names)
    torch.manual_seed(0)
    x = torch.randn(_X)  # what it was calibrated on: nothing is clipped
    with torch.no_grad():
        want = [v.numpy() for v in captured.graph_module(x)]
    for model, tolerance in ((float_model(marked), 1e-5), (quantized_model(marked, plans[0], params[0]), 0.1)):
        assert [i.name for i in model.graph.inputs] == ["image"]
        assert [o.name for o in model.graph.outputs] == names
        for got, value in zip(_run(model, x.numpy()), want, strict=True):
            np.testing.assert_allclose(got, value, atol=tolerance)


def test_the_batch_stays_dynamic():
    captured, plans, params = _prepared(_Net(), _spec())
    model = quantized_model(export_marked(captured, plans, opset=20), plans[0], params[0])
    for batch in (1, 5):
        assert _run(model, np.zeros((batch, 4, 6, 6), np.float32))[0].shape == (batch, 5)


def test_opset_and_producer():
    captured, plans, params = _prepared(_Net(), _spec())
    proto = _proto(quantized_model(export_marked(captured, plans, opset=20), plans[0], params[0]))
    assert {o.domain: o.version for o in proto.opset_import}[""] == 20
    assert MARK[0] not in {o.domain for o in proto.opset_import}
    assert proto.producer_name == "razordeploy"


def test_no_plan_no_marks():
    captured, _, _ = _prepared(_Net(), _spec())
    assert not export_marked(captured, [], opset=20).marks


def test_a_weight_that_is_no_constant_is_refused():
    captured, plans, params = _prepared(_Net(), _spec())
    marked = export_marked(captured, plans, opset=20)
    mark = next(n for n in marked.model.graph if (n.domain, n.op_type) == MARK and n.inputs[0].const_value is not None)
    mark.replace_input_with(0, marked.model.graph.inputs[0])
    with pytest.raises(BackendError, match="not a constant"):
        quantized_model(marked, plans[0], params[0])


class _NormBehindAdd(nn.Module):
    """A batch norm that no layer can take up, whose result is quantized: both have a scale."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm, self.c = (
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 4, 1),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 1),
        )
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.c(self.norm(F.relu(self.a(x)) + F.relu(self.b(x))))


def test_what_is_left_of_a_batch_norm_is_one_operation(tmp_path):
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    ir = pytest.importorskip("onnx_ir", reason="needs onnx_ir")
    torch.manual_seed(0)
    net, x = _NormBehindAdd().eval(), torch.randn(_X)
    captured = capture(net, (x,))
    spec = BackendSpec(
        name="t",
        summary="",
        extra="",
        ops={"conv2d": OpRule(inputs=(0,), weight=1)},
        activation=TensorRule(signed=False, symmetric=False),
        weight=TensorRule(symmetric=True),
    )
    plan = place(captured, spec, settings_for(spec, QuantizeConfig()))
    params = resolve(captured, plan, collect(captured, [plan], [(x,)]))
    marked = export_marked(captured, [plan], opset=20)
    for model in (float_model(marked), quantized_model(marked, plan, params)):
        ops = Counter(n.op_type for n in model.graph)
        assert ops["BatchNormalization"] == 1
        assert not ops["Mul"]
        assert ops["Add"] == 1
    ir.save(float_model(marked), tmp_path / "float.onnx")
    session = ort.InferenceSession(tmp_path / "float.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, net(x).detach().numpy(), atol=1e-5)


def test_zeros_before_a_convolution_are_its_own_padding(tmp_path):
    """One-sided, as models from TensorFlow pad; another value, or a second reader, keeps the operation."""
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    ir = pytest.importorskip("onnx_ir", reason="needs onnx_ir")
    torch.manual_seed(0)
    for value, kept in ((0.0, 0), (1.0, 1)):
        net, x = (
            nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), value), nn.Conv2d(4, 4, 3, 2, padding=0)).eval(),
            torch.randn(_X),
        )
        marked = export_marked(capture(net, (x,)), [], opset=20)
        model = float_model(marked)
        assert Counter(n.op_type for n in model.graph)["Pad"] == kept
        ir.save(model, tmp_path / "float.onnx")
        session = ort.InferenceSession(tmp_path / "float.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(found, net(x).detach().numpy(), atol=1e-5)


class _Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.tensor([2, 0, 1, 1]))

    def forward(self, x):
        return x.flatten(0, 1)[self.rows + x.argmax().clamp(max=0)] * 2


def test_an_indexing_turns_no_axes():
    """The exporter writes transposes around it that leave every axis where it is."""
    captured = capture(_Rows(), (torch.randn(_X),), dynamic_batch=False)
    ops = Counter(n.op_type for n in float_model(export_marked(captured, [], opset=20)).graph)
    assert ops["GatherND"] == 1 and not ops["Transpose"], ops


def test_a_resized_image_has_a_shape():
    net = nn.Sequential(nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=(1.5, 1.0), mode="bilinear"), nn.ReLU())
    model = float_model(export_marked(capture(net, (torch.randn(_X),)), [], opset=20))
    sizes = [list(n.outputs[0].shape)[1:] for n in model.graph if n.op_type in {"Resize", "Relu"}]
    assert sizes == [[4, 12, 12], [4, 18, 12], [4, 18, 12]]
