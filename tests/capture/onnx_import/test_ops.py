"""Every operator in its variants against ONNX Runtime, unoptimised."""

from __future__ import annotations

import numpy as np
import pytest

from razordeploy.capture.onnx_import.check import BOUND, error
from razordeploy.capture.onnx_import.load import import_onnx
from razordeploy.capture.onnx_import.ops.table import RULES
from tests.capture.onnx_import.conftest import INT64, node, onnx, random, write

torch = pytest.importorskip("torch", reason="needs torch")
IMAGE = ("N", 4, 9, 7)
EVEN = ("N", 4, 8, 6)
SERIES = ("N", 4, 11)
VOLUME = ("N", 2, 5, 6, 4)
TOKENS = ("N", 5, 8)
F32, I64 = np.float32, np.int64


def ints(*values):
    return np.array(values, I64)


def floats(*values):
    return np.array(values, F32)


def case(kind, shape=IMAGE, *, constants=(), opset=(13, 17, 21), label="", **attributes):
    """One operator on input ``x`` and constants, at these opsets."""
    return pytest.param(kind, shape, tuple(constants), opset, attributes, id=f"{kind}-{label}" if label else kind)


W = random(6, 4, 3, 3)
CONV = [
    case("Conv", constants=(W,), kernel_shape=[3, 3]),
    case("Conv", constants=(W, random(6)), pads=[1, 1, 1, 1], strides=[2, 1], label="bias pads strides"),
    case("Conv", constants=(W,), pads=[0, 1, 2, 0], label="asymmetric pads"),
    case("Conv", constants=(W,), auto_pad="SAME_UPPER", strides=[2, 2], label="same upper"),
    case("Conv", constants=(W,), auto_pad="SAME_LOWER", strides=[2, 3], label="same lower"),
    case("Conv", constants=(W,), auto_pad="VALID", dilations=[2, 2], label="valid dilated"),
    case("Conv", constants=(random(4, 1, 3, 3),), group=4, pads=[1, 1, 1, 1], label="depthwise"),
    case("Conv", constants=(random(6, 2, 1, 1),), group=2, label="grouped"),
    case("Conv", SERIES, constants=(random(3, 4, 3),), pads=[1, 0], label="1d"),
    case("Conv", VOLUME, constants=(random(3, 2, 2, 3, 1),), strides=[1, 2, 1], label="3d"),
    case("ConvTranspose", constants=(random(4, 3, 3, 3),)),
    case("ConvTranspose", constants=(random(4, 3, 2, 2), random(3)), strides=[2, 2], label="upsampling"),
    case("ConvTranspose", constants=(random(4, 3, 3, 3),), strides=[2, 2], pads=[1, 1, 1, 1],
         output_padding=[1, 1], label="output padding"),
    case("ConvTranspose", constants=(random(4, 3, 4, 4),), strides=[2, 2], pads=[0, 1, 2, 1], label="asymmetric pads"),
    case("ConvTranspose", constants=(random(4, 3, 3, 3),), strides=[2, 2], output_shape=[18, 14], label="output shape"),
    case("ConvTranspose", constants=(random(4, 3, 3, 3),), strides=[2, 2], auto_pad="SAME_UPPER", label="same upper"),
    case("ConvTranspose", constants=(random(4, 3, 3, 3),), strides=[2, 2], auto_pad="SAME_LOWER", label="same lower"),
    case("ConvTranspose", constants=(random(4, 2, 3, 3),), group=2, dilations=[2, 1], label="grouped dilated"),
    case("ConvTranspose", SERIES, constants=(random(4, 3, 3),), strides=[3], pads=[1, 0], label="1d"),
]  # fmt: skip

POOLS = [
    *(case(kind, kernel_shape=[3, 2], label="plain") for kind in ("MaxPool", "AveragePool")),
    *(case(kind, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], label="padded")
      for kind in ("MaxPool", "AveragePool")),
    *(case(kind, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0], label="asymmetric")
      for kind in ("MaxPool", "AveragePool")),
    *(case(kind, kernel_shape=[3, 3], strides=[2, 2], auto_pad=auto, label=auto)
      for kind in ("MaxPool", "AveragePool") for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    *(case(kind, ("N", 2, 8, 6), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, label="ceil")
      for kind in ("MaxPool", "AveragePool")),
    case("MaxPool", ("N", 2, 8, 6), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1,
         label="ceil padded"),
    case("AveragePool", ("N", 2, 8, 6), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1,
         label="ceil padded"),
    case("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1,
         label="counts pads"),
    case("AveragePool", kernel_shape=[3, 3], pads=[0, 1, 1, 0], count_include_pad=1, label="counts asymmetric pads"),
    case("MaxPool", kernel_shape=[2, 2], dilations=[2, 2], label="dilated"),
    case("MaxPool", SERIES, kernel_shape=[3], strides=[2], label="1d"),
    case("MaxPool", VOLUME, kernel_shape=[2, 2, 2], label="3d"),
    case("AveragePool", VOLUME, kernel_shape=[2, 2, 2], label="3d"),
    case("GlobalAveragePool"), case("GlobalAveragePool", SERIES, label="1d"),
    case("GlobalAveragePool", VOLUME, label="3d"),
    case("GlobalMaxPool"),
]  # fmt: skip

C = 4
NORMS = [
    case("BatchNormalization", constants=(random(C), random(C), random(C), random(C) ** 2), epsilon=1e-3),
    case("BatchNormalization", ("N", C), constants=(random(C), random(C), random(C), random(C) ** 2), label="flat"),
    case("InstanceNormalization", constants=(random(C), random(C)), epsilon=1e-3),
    case("LayerNormalization", TOKENS, constants=(random(8), random(8)), opset=(17, 21), epsilon=1e-3),
    case("LayerNormalization", TOKENS, constants=(random(8),), opset=(17,), label="no bias"),
    case("LayerNormalization", TOKENS, constants=(random(5, 8), random(5, 8)), opset=(17,), axis=1, label="two axes"),
    case("GroupNormalization", constants=(random(2), random(2)), opset=(18,), num_groups=2, label="by group"),
    case("GroupNormalization", constants=(random(C), random(C)), opset=(21,), num_groups=2, label="by channel"),
    case("LRN", size=3, alpha=0.02, beta=0.6, bias=2.0),
    case("LpNormalization", TOKENS, axis=1, p=2), case("LpNormalization", TOKENS, p=1, label="first order"),
    case("MeanVarianceNormalization"),
    case("RMSNormalization", TOKENS, constants=(random(8),), opset=(23,), epsilon=1e-3),
]  # fmt: skip

PLAIN = ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSigmoid", "Identity", "LeakyRelu", "LogSoftmax", "Neg",
         "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Tanh", "Elu", "Celu",
         "Reciprocal", "ThresholdedRelu", "Shrink", "Dropout", "IsNaN", "Size", "Shape")  # fmt: skip
ACTIVATIONS = [
    *(case(kind) for kind in PLAIN),
    case("HardSwish", opset=(14, 21)), case("Mish", opset=(18,)), case("Gelu", opset=(20,)),
    case("Gelu", opset=(20,), approximate="tanh", label="tanh"),
    case("HardSigmoid", alpha=1 / 6, beta=0.5, label="of torch"), case("LeakyRelu", alpha=0.3, label="alpha"),
    case("Elu", alpha=0.7, label="alpha"), case("Celu", alpha=0.7, label="alpha"),
    case("Softmax", axis=1, label="channels"), case("Softmax", axis=1, opset=(11,), label="flattened"),
    case("Softmax", ("N", 5), axis=1, opset=(11,), label="last, old"),
    case("LogSoftmax", axis=1, opset=(9, 13), label="channels"),
    case("PRelu", constants=(random(4, 1, 1),), label="by channel"), case("PRelu", constants=(random(1),), label="one"),
    case("PRelu", constants=(random(1, 7),), label="by column"),
    case("Clip", constants=(F32(0), F32(6)), label="relu6"), case("Clip", constants=(F32(-0.5), F32(0.4))),
    case("Clip", constants=(F32(0),), label="relu"), case("Clip", constants=("", F32(0.3)), label="upper"),
    case("Clip", opset=(9,), min=-0.1, max=0.6, label="attributes"), case("Clip", label="nothing"),
]  # fmt: skip

SPATIAL = (1, 1, 9, 7)
BINARY = [
    *(case(kind, constants=(random(*SPATIAL) + 3,), label="tensor") for kind in ("Add", "Sub", "Mul", "Div")),
    *(case(kind, constants=(F32(1.7),), label="number") for kind in ("Add", "Sub", "Mul", "Div", "Pow")[:4]),
    *(case(kind, constants=(random(4, 1, 1),), label="by channel") for kind in ("Max", "Min", "Sum", "Mean")),
    *(case(kind, constants=(random(9, 7),)) for kind in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")),
    case("Pow", constants=(F32(2),), label="square"), case("Pow", constants=(ints(3),), label="integer exponent"),
    case("Mod", constants=(F32(0.7),), fmod=1), case("Max", constants=(random(7), random(9, 1)), label="three"),
    case("CumSum", TOKENS, constants=(np.array(1),)), case("CumSum", TOKENS, constants=(np.array(-1),), exclusive=1,
                                                         reverse=1, label="reverse"),
]  # fmt: skip

REDUCE = [
    *(case(kind, opset=(11, 13, 17), axes=[2, 3], keepdims=keep, label=f"attribute {keep}")
      for kind in ("ReduceMean", "ReduceMax", "ReduceL2") for keep in (0, 1)),
    *(case(kind, opset=(18, 21), constants=(ints(1, -1),), keepdims=0, label="input")
      for kind in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
                   "ReduceLogSumExp")),
    case("ReduceSum", constants=(ints(1),), opset=(13, 21)), case("ReduceSum", axes=[1], opset=(11,), label="old"),
    case("ReduceSum", opset=(13,), noop_with_empty_axes=1, label="nothing"),
    case("ReduceMean", ("N", 4), opset=(13,), label="all"),
    case("ReduceLogSum", ("N", 4, 3), opset=(18,), constants=(ints(2),), label="of logarithms"),
    *(case(kind, axis=1, keepdims=keep, label=f"keep {keep}") for kind in ("ArgMax", "ArgMin") for keep in (0, 1)),
    case("ArgMax", axis=-1, select_last_index=1, label="last"),
    case("TopK", TOKENS, constants=(ints(3),), axis=1),
    case("TopK", TOKENS, constants=(ints(2),), largest=0, label="smallest"),
]  # fmt: skip

SHAPES = [
    case("Reshape", constants=(ints(0, -1),)), case("Reshape", constants=(ints(-1, 2, 2, 63),), label="split"),
    case("Flatten"), case("Flatten", axis=2, label="two"), case("Flatten", axis=0, label="all"),
    case("Flatten", axis=-1, label="last"),
    case("Transpose", perm=[0, 2, 3, 1]), case("Transpose", ("N", 3), label="reverse"),
    case("Squeeze", ("N", 1, 5, 1), opset=(11,), axes=[1, 3], label="attribute"),
    case("Squeeze", ("N", 1, 5, 1), constants=(ints(-1),), opset=(13, 21)),
    case("Squeeze", ("N", 1, 5, 1), label="all ones"),
    case("Unsqueeze", ("N", 5), opset=(11,), axes=[0, 3], label="attribute"),
    case("Unsqueeze", ("N", 5), constants=(ints(1, -1),), opset=(13,)),
    case("Concat", constants=(random(2, 1, 9, 7),), axis=1),
    case("Concat", constants=(random(2, 4, 9, 2),), axis=-1, label="last"),
    case("Split", axis=1, opset=(11,), split=[1, 3], label="attribute"),
    case("Split", constants=(ints(1, 3),), axis=1, opset=(13,)), case("Split", axis=1, opset=(13,), label="even"),
    case("Split", axis=2, opset=(18,), num_outputs=2, label="uneven"),
    case("Slice", constants=(ints(1, 0), ints(8, 5), ints(2, 3), ints(2, 1))),
    case("Slice", constants=(ints(-3), ints(2**63 - 1), ints(-1)), label="to the end"),
    case("Slice", constants=(ints(-1), ints(-(2**63)), ints(1), ints(-1)), label="backwards"),
    case("Slice", constants=(ints(6), ints(1), ints(2), ints(-2)), label="backwards by two"),
    case("Slice", opset=(9,), starts=[1], ends=[1000], axes=[2], label="attributes"),
    case("Gather", constants=(ints(2, 0, -1),), axis=1), case("Gather", constants=(np.array(-2),), axis=2, label="one"),
    case("Gather", constants=(ints(0, 1, 2, 3).reshape(2, 2),), axis=1, label="matrix"),
    case("GatherElements", ("N", 4), constants=(ints(0, 3, -1, 1).reshape(2, 2),), axis=1),
    case("GatherND", ("N", 4, 3), constants=(ints(0, 1, 1, 2).reshape(2, 2),)),
    case("Expand", ("N", 1, 3), constants=(ints(1, 4, 1),)),
    case("Expand", ("N", 3), constants=(ints(2, 1, 3),), label="rank"),
    case("Tile", ("N", 2, 3), constants=(ints(1, 2, 3),)),
    case("Pad", constants=(ints(0, 0, 1, 2, 0, 0, 3, 1),)),
    case("Pad", constants=(ints(0, 0, 1, 2, 0, 0, 3, 1), F32(1.5)), label="value"),
    case("Pad", constants=(ints(0, 1, 0, 0, 0, 2, 0, 0),), label="channels"),
    case("Pad", constants=(ints(0, 0, -1, 0, 0, 0, -2, 1),), label="crop"),
    *(case("Pad", constants=(ints(0, 0, 1, 2, 0, 0, 2, 1),), mode=mode, label=mode) for mode in ("reflect", "edge")),
    case("Pad", constants=(ints(0, 0, 1, 2, 0, 0, 2, 1),), mode="wrap", opset=(19,), label="wrap"),
    case("Pad", constants=(ints(2, 1), F32(0), ints(3)), opset=(18,), label="axes"),
    case("Pad", SERIES, constants=(ints(0, 0, 2, 0, 0, 3),), mode="reflect", label="reflect 1d"),
    case("Pad", opset=(9,), pads=[0, 0, 1, 1, 0, 0, 2, 2], value=0.5, label="attributes"),
    case("DepthToSpace", EVEN, blocksize=2), case("DepthToSpace", EVEN, blocksize=2, mode="CRD", label="CRD"),
    case("SpaceToDepth", EVEN, blocksize=2),
    case("Trilu", TOKENS, opset=(14,)),
    case("Trilu", TOKENS, constants=(np.array(1),), upper=0, opset=(14,), label="lower"),
    case("Cast", to=7), case("Cast", to=9, label="bool"), case("Cast", to=1, label="float"),
    case("ScatterND", ("N", 4), constants=(ints(0, 1, 1, 3).reshape(2, 2), floats(5, 6))),
    case("ScatterElements", ("N", 4), constants=(ints(0, 3, -2, 1).reshape(2, 2), random(2, 2)), axis=1),
    case("ScatterElements", ("N", 4), constants=(ints(1, 1, 0, 1).reshape(2, 2), random(2, 2)), axis=1, reduction="add",
         opset=(16,), label="add"),
]  # fmt: skip

PRODUCTS = [
    case("MatMul", TOKENS, constants=(random(8, 3),)),
    case("MatMul", TOKENS, constants=(random(1, 8, 3),), label="batched"),
    case("Gemm", ("N", 8), constants=(random(8, 3), random(3))),
    case("Gemm", ("N", 8), constants=(random(8, 3),), label="no bias"),
    case("Gemm", ("N", 8), constants=(random(3, 8), random(1, 3)), transB=1, label="transposed"),
    case("Gemm", ("N", 8), constants=(random(3, 8), random(3)), transB=1, alpha=0.5, beta=2.0, label="scaled"),
    case("Gemm", ("N", 8), constants=(random(3, 8), random(1)), transB=1, label="one bias"),
    case("Gemm", (8, 2), constants=(random(8, 3), random(2, 1)), transA=1, label="left transposed"),
    case("Einsum", TOKENS, constants=(random(8, 2, 3),), equation="nti,ihd->nthd"),
]  # fmt: skip

EMPTY = floats()
SCALES = floats(1, 1, 2, 3)
MODES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
RESIZE = [
    *(case("Resize", EVEN, constants=(EMPTY, SCALES), mode=mode, coordinate_transformation_mode=at,
           label=f"{mode} {at}") for mode in ("nearest", "linear", "cubic") for at in MODES),
    *(case("Resize", EVEN, constants=(EMPTY, floats(1, 1, 0.6, 1.7)), mode=mode, coordinate_transformation_mode=at,
           label=f"{mode} {at} odd") for mode in ("nearest", "linear", "cubic") for at in MODES),
    *(case("Resize", EVEN, constants=(EMPTY, floats(1, 1, 1.5, 0.7)), nearest_mode=how, label=how)
      for how in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")),
    case("Resize", EVEN, constants=(EMPTY, EMPTY, ints(2, 4, 5, 13)), mode="linear", opset=(13, 18), label="sizes"),
    case("Resize", EVEN, constants=(EMPTY, EMPTY, ints(2, 4, 5, 13)), opset=(13, 18), label="sizes nearest"),
    case("Resize", EVEN, constants=(EMPTY, EMPTY, ints(11, 13)), mode="linear", opset=(18,), axes=[2, 3], label="axes"),
    case("Resize", EVEN, constants=(EMPTY, EMPTY, ints(5, 12)), mode="linear", opset=(18,), axes=[2, 3],
         keep_aspect_ratio_policy="not_larger", label="not larger"),
    case("Resize", EVEN, constants=(EMPTY, SCALES), mode="cubic", cubic_coeff_a=-0.5, label="cubic coefficient"),
    case("Resize", EVEN, constants=(EMPTY, SCALES), mode="cubic", exclude_outside=1, label="exclude outside"),
    case("Resize", EVEN, constants=(EMPTY, EMPTY, ints(2, 4, 1, 1)), mode="linear",
         coordinate_transformation_mode="pytorch_half_pixel", label="to one"),
    case("Resize", SERIES, constants=(EMPTY, floats(1, 1, 2)), mode="linear", label="1d"),
    case("Resize", EVEN, constants=(SCALES,), opset=(10,), mode="nearest", label="old nearest"),
    case("Resize", EVEN, constants=(SCALES,), opset=(10,), mode="linear", label="old linear"),
    case("Upsample", EVEN, constants=(SCALES,), opset=(9,), mode="nearest"),
    case("Upsample", EVEN, constants=(SCALES,), opset=(9,), mode="linear", label="linear"),
]  # fmt: skip

CASES = [*CONV, *POOLS, *NORMS, *ACTIVATIONS, *BINARY, *REDUCE, *SHAPES, *PRODUCTS, *RESIZE]
OUTPUTS = {"Split": 2, "TopK": 2}


def agrees(path, expect=BOUND):
    """Import, which compares on its own, and compare again on other inputs."""
    from razordeploy.capture.onnx_import.reference import Reference

    module, inputs = import_onnx(path)
    fresh = [x.flip(-1) if x.dim() else x for x in inputs]
    found = module(*fresh)
    expected = Reference(path)([x.numpy() for x in fresh])
    for a, b in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        assert error(a.numpy(), b) <= expect
    return module


@pytest.mark.parametrize(("kind", "shape", "constants", "opsets", "attributes"), CASES)
def test_operator(tmp_path, kind, shape, constants, opsets, attributes):
    names = [f"c{i}" if not isinstance(c, str) else "" for i, c in enumerate(constants)]
    arrays = {n: c for n, c in zip(names, constants, strict=True) if n}
    outputs = [f"out{i}" for i in range(OUTPUTS.get(kind, 1))]
    for opset in opsets:
        made = onnx.helper.make_node(kind, ["x", *names], outputs, name="the node", **attributes)
        agrees(write(tmp_path / f"{opset}.onnx", [made], {"x": shape}, arrays, opset=opset))


TWO_INPUTS = {
    "MatMul": [("N", 3, 4), ("N", 4, 5)],
    "Add": [("N", 3, 4), ("N", 1, 4)],
    "Div": [("N", 3), ("N", 3)],
    "Mod": [("N", 3), ("N", 3)],
    "Concat": [("N", 3), ("N", 2)],
    "Where": [("N", 3), ("N", 3)],
    "Mul": [("N", 3), ("N", 3)],
}


@pytest.mark.parametrize("kind", TWO_INPUTS)
def test_two_inputs(tmp_path, kind):
    attributes = {"Concat": {"axis": 1}, "Mod": {"fmod": 1}}.get(kind, {})
    names = ["a", "b"]
    nodes = [node(kind, names, **attributes)]
    if kind == "Where":
        nodes = [node("Greater", names, "c"), node("Where", ["c", "a", "b"])]
    agrees(write(tmp_path / "m.onnx", nodes, dict(zip(names, TWO_INPUTS[kind], strict=True))))


@pytest.mark.parametrize("kind", ["Div", "Mod", "Add", "Equal", "Max"])
def test_integers(tmp_path, kind):
    nodes = [node("Sub", ["x", "c0"], "y"), node(kind, ["y", "c1"])]
    constants = {"c0": ints(5), "c1": ints(3)}
    agrees(write(tmp_path / "m.onnx", nodes, {"x": ("N", 4)}, constants, types={"x": INT64}))


@pytest.mark.parametrize("kind", ["And", "Or", "Xor", "Not"])
def test_logic(tmp_path, kind):
    nodes = [node("Greater", ["x", "zero"], "a"), node("Less", ["x", "one"], "b")]
    nodes.append(node(kind, ["a"] if kind == "Not" else ["a", "b"]))
    agrees(write(tmp_path / "m.onnx", nodes, {"x": ("N", 4)}, {"zero": F32(0), "one": F32(0.5)}))


def test_embedding(tmp_path):
    path = write(
        tmp_path / "m.onnx", [node("Gather", ["w", "x"])], {"x": ("N", 4)}, {"w": random(6, 3)}, types={"x": INT64}
    )
    agrees(path)


def test_one_hot(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [node("OneHot", ["x", "depth", "values"], axis=1)],
        {"x": ("N", 4)},
        {"depth": ints(3), "values": floats(-1, 2)},
        types={"x": INT64},
    )
    agrees(path)


def test_shape_arithmetic(tmp_path):
    """``x.reshape(n, c, h * w // 2, 2)`` as exporters write it, and a mask that is made of the shape."""
    nodes = [
        node("Shape", ["x"], "shape"),
        node("Gather", ["shape", "zero"], "n", axis=0, name="n"),
        node("Gather", ["shape", "two"], "h", axis=0, name="h"),
        node("Mul", ["h", "three"], "area"),
        node("Unsqueeze", ["n", "axes"], "n1", name="n1"),
        node("Unsqueeze", ["area", "axes"], "a1", name="a1"),
        node("Concat", ["n1", "four", "a1", "minus"], "to", axis=0),
        node("Reshape", ["x", "to"], "y"),
        node("Slice", ["shape", "axes", "one"], "first"),
        node("Concat", ["first", "four"], "size", axis=0, name="size"),
        node("ConstantOfShape", ["size"], "ones", value=onnx.numpy_helper.from_array(floats(1))),
        node("Range", ["zero", "four0", "one0"], "range"),
        node("Cast", ["range"], "row", to=1),
        node("Add", ["ones", "row"], "weights", name="weights"),
        node("Unsqueeze", ["weights", "last"], "wide", name="wide"),
        node("Mul", ["y", "wide"], "out", name="out"),
    ]
    constants = {
        **{"zero": np.array(0), "two": np.array(2), "three": np.array(3), "four0": np.array(4), "one0": np.array(1)},
        **{"axes": ints(0), "one": ints(1), "four": ints(4), "minus": ints(-1), "last": ints(2, 3)},
    }
    module = agrees(write(tmp_path / "m.onnx", nodes, {"x": EVEN}, constants))
    # All but what depends on the batch is computed beforehand.
    assert [n.op.type for n in module.nodes if n.op.type in {"Range", "Cast", "Mul"}] == ["Mul"]
    assert module(torch.randn(7, 4, 8, 6)).shape == (7, 4, 24, 2)


def test_every_operator_is_in_a_test():
    tested = {p.values[0] for p in CASES} | TWO_INPUTS.keys()
    others = {
        "And",
        "Or",
        "Xor",
        "Not",
        "OneHot",
        "Range",
        "ConstantOfShape",
        "Log",
        "Sqrt",
        "IsInf",
        "CastLike",
        "Swish",
    }
    assert RULES.keys() - tested - others == set()
