"""Layers of an engine, from the inspector's JSON as TensorRT 10 and 11 write it, by their documentation."""

from __future__ import annotations

import json

import pytest

from razordeploy.backends.harness import coverage
from razordeploy.backends.tensorrt.inspector import layers
from razordeploy.errors import BackendError
from razordeploy.quantization.plan import PlannedOp

INT8 = "Thirty-two wide channel vectorized row major Int8 format"
FLOAT = "Row major linear FP32"
SEPARATOR = "\x1e"


def tensor(name, kind, version):
    if version == 10:
        return {"Name": name, "Location": "Device", "Dimensions": [1, 16, 8, 8], "Format/Datatype": kind}
    dtype = "Int8" if "Int8" in kind else "Float"
    return {"Name": name, "Dimensions": [1, 16, 8, 8], "Format": kind.replace(" Int8", ""), "DataType": dtype}


def layer(name, kind, read, write, version, *, origins=(), parameter=""):
    return {
        "Name": name,
        "LayerType": kind,
        "ParameterType": parameter,
        "Inputs": [tensor(f"{name}.in{i}", k, version) for i, k in enumerate(read)],
        "Outputs": [tensor(f"{name}.out", write, version)],
        "Metadata": SEPARATOR.join(f"[ONNX Layer: {o}]" for o in origins),
    }


def engine(version):
    found = {
        "Layers": [
            layer("Reformatting CopyNode for Input Tensor 0 to conv2d", "Reformat", [FLOAT], FLOAT, version),
            layer("x.x.quantize", "Reformat", [FLOAT], INT8, version, origins=["x.x.quantize"]),
            layer(
                *("conv2d.weight + conv2d + node.Relu.3", "CaskConvolution", [INT8], INT8, version),
                origins=["conv2d", "node.Relu.3"],
                parameter="Convolution",
            ),
            layer(
                *("conv2d_1 + add", "CaskConvolution", [INT8, FLOAT], FLOAT, version),
                origins=["conv2d_1", "add"],
                parameter="Convolution",
            ),
            layer("global_avg_pool", "CaskPooling", [FLOAT], FLOAT, version, parameter="Pooling"),
            layer("PWN(sigmoid)", "PointWiseV2", [FLOAT], FLOAT, version, parameter="PointWise"),
            layer("{ForeignNode[a...b]}", "Myelin", [INT8], FLOAT, version, origins=["linear", "softmax"]),
            layer("shape_call_1", "shape_call", [], "Int32", version),
        ],
    }
    if version == 10:
        found["Bindings"] = ["input", "output"]
    else:
        found["I/O Tensors"] = [{"Name": "input", "IOMode": "Input", "DataType": "Float"}]
    return json.dumps(found)


@pytest.mark.parametrize("version", [10, 11])
def test_types_and_origins(version):
    found = {op.name: op for op in layers(engine(version))}
    assert {name: op.precision for name, op in found.items()} == {
        "conv2d.weight + conv2d + node.Relu.3": "i8",
        "conv2d_1 + add": "i8",
        "global_avg_pool": "f32",
        "PWN(sigmoid)": "f32",
        "{ForeignNode[a...b]}": "i8",
    }
    assert found["conv2d_1 + add"].origins == ("conv2d_1", "add")
    assert found["PWN(sigmoid)"].origins == ("sigmoid",)
    assert found["conv2d_1 + add"].type == "Convolution"


@pytest.mark.parametrize("version", [10, 11])
def test_coverage(version):
    names = ["conv2d", "conv2d_1", "add", "global_avg_pool", "linear", "gone"]
    ops = [PlannedOp(node=n, kind=n.partition("_")[0], module=n, int8=True) for n in names]
    found = coverage(ops, layers(engine(version)))
    assert (found.planned, found.int8) == (6, 4)
    assert {f.node: f.reason for f in found.float_ops} == {
        "global_avg_pool": "planned as int8, but the engine runs Pooling in f32",
        "gone": "the engine's graph does not name it: it was folded away or merged",
    }


@pytest.mark.parametrize("text", ["", "[]", '{"Bindings": []}'])
def test_not_the_inspectors_json(text):
    with pytest.raises(BackendError, match="engine inspector's JSON"):
        layers(text)


def test_names_alone_tell_no_types():
    with pytest.raises(BackendError, match="profilingVerbosity=detailed"):
        layers(json.dumps({"Layers": ["conv2d", "linear"], "Bindings": []}))
