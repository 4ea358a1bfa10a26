"""What exporters take apart is one operation again, and only that."""

from __future__ import annotations

import math

import numpy as np
import pytest

from razordeploy.capture.onnx_import.load import import_onnx
from tests.capture.onnx_import.conftest import node, random, write

F32 = np.float32


class Writer:
    """Nodes by name: ``w("Mul", "x", 0.5) -> name of the result``; numbers become constants."""

    def __init__(self, scope="/net/act"):
        self.nodes, self.constants, self.scope = [], {}, scope

    def __call__(self, kind, *inputs, **attributes):
        names = []
        for value in inputs:
            if not isinstance(value, str):
                name = f"k{len(self.constants)}"
                self.constants[name] = np.asarray(value, F32 if not isinstance(value, np.ndarray) else value.dtype)
                value = name
            names.append(value)
        made = node(kind, names, f"v{len(self.nodes)}", name=f"{self.scope}/{kind}_{len(self.nodes)}", **attributes)
        self.nodes.append(made)
        return made.output[0]


def gelu(w, order):
    x, half = "x", 0.5
    gate = w("Add", w("Erf", w("Div", x, math.sqrt(2)) if order != 1 else w("Mul", x, math.sqrt(0.5))), 1.0)
    if order == 0:
        w("Mul", w("Mul", x, gate), half)
    elif order == 1:
        w("Mul", gate, w("Mul", half, x))
    else:
        w("Mul", x, w("Mul", gate, half))


def tanh_gelu(w, cube):
    third = w("Pow", "x", 3.0) if cube == "pow" else w("Mul", "x", w("Mul", "x", "x"))
    inner = w("Mul", math.sqrt(2 / math.pi), w("Add", "x", w("Mul", third, 0.044715)))
    w("Mul", w("Mul", "x", w("Add", 1.0, w("Tanh", inner))), 0.5)


def layer_norm(w, bias=True, square="Pow", inverse=False, axes=(-1,)):
    centred = w("Sub", "x", w("ReduceMean", "x", axes=axes))
    squared = w("Pow", centred, 2.0) if square == "Pow" else w("Mul", centred, centred)
    deviation = w("Sqrt", w("Add", w("ReduceMean", squared, axes=axes), 1e-3))
    normal = w("Mul", centred, w("Reciprocal", deviation)) if inverse else w("Div", centred, deviation)
    scaled = w("Mul", normal, random(6))
    if bias:
        w("Add", scaled, random(6, seed=1))


def group_norm(w):
    grouped = w("Reshape", "x", np.array([0, 2, -1]))
    normal = w("InstanceNormalization", grouped, np.ones(2, F32), np.zeros(2, F32), epsilon=1e-3)
    w("Add", w("Mul", w("Reshape", normal, w("Shape", "x")), random(4, 1)), random(4, 1, seed=1))


def hard_swish(w, form):
    if form == "hard sigmoid":
        w("Mul", "x", w("HardSigmoid", "x", alpha=1 / 6, beta=0.5))
        return
    relu6 = w("Clip", w("Add", "x", 3.0), 0.0, 6.0)
    if form == "product first":
        w("Div", w("Mul", "x", relu6), 6.0)
    else:
        w("Mul", w("Div", relu6, 6.0), "x")


FOUND = {
    **{f"gelu {i}": (lambda w, i=i: gelu(w, i), "Gelu") for i in range(3)},
    **{f"tanh gelu {c}": (lambda w, c=c: tanh_gelu(w, c), "Gelu") for c in ("pow", "product")},
    "layer norm": (layer_norm, "LayerNormalization"),
    "layer norm without bias": (lambda w: layer_norm(w, bias=False), "LayerNormalization"),
    "layer norm of products": (lambda w: layer_norm(w, square="Mul", inverse=True), "LayerNormalization"),
    "group norm": (group_norm, "GroupNormalization"),
    **{f"hard swish {f}": (lambda w, f=f: hard_swish(w, f), "HardSwish")
       for f in ("hard sigmoid", "product first", "quotient first")},
    "silu": (lambda w: w("Mul", w("Sigmoid", "x"), "x"), "Swish"),
    "mish": (lambda w: w("Mul", "x", w("Tanh", w("Softplus", "x"))), "Mish"),
}  # fmt: skip


def build(tmp_path, make, **options):
    w = Writer()
    make(w)
    return write(tmp_path / "m.onnx", w.nodes, {"x": ("N", 4, 6)}, w.constants, **options)


@pytest.mark.parametrize("name", FOUND)
def test_is_one_operation(tmp_path, name):
    make, kind = FOUND[name]
    # The import holds the result against ONNX Runtime, which runs the pieces.
    module, _ = import_onnx(build(tmp_path, make))
    assert [n.op.type for n in module.nodes] == [kind]
    assert module.nodes[0].op.name == f"/net/act/{kind}"


def other_axis(w):
    layer_norm(w, axes=(1,))


def half_read_elsewhere(w):
    gate = w("Sigmoid", "x")
    w("Add", w("Mul", "x", gate), gate)


def other_gate(w):
    w("Mul", "x", w("Sigmoid", w("Neg", "x")))


def other_number(w):
    w("Mul", w("Mul", "x", w("Add", w("Erf", w("Div", "x", 1.5)), 1.0)), 0.5)


def other_slope(w):
    w("Mul", "x", w("HardSigmoid", "x"))


def clip_to_five(w):
    w("Div", w("Mul", "x", w("Clip", w("Add", "x", 3.0), 0.0, 5.0)), 6.0)


LEFT = (other_axis, half_read_elsewhere, other_gate, other_number, other_slope, clip_to_five)


@pytest.mark.parametrize("make", LEFT, ids=lambda f: f.__name__)
def test_is_left_alone(tmp_path, make):
    module, _ = import_onnx(build(tmp_path, make))
    assert not {n.op.type for n in module.nodes} & {"Gelu", "LayerNormalization", "HardSwish", "Swish", "Mish"}


def test_a_value_that_the_model_returns_stays(tmp_path):
    w = Writer()
    gate = w("Sigmoid", "x")
    last = w("Mul", "x", gate)
    path = write(tmp_path / "m.onnx", w.nodes, {"x": ("N", 4, 6)}, w.constants, outputs=[last, gate])
    assert [n.op.type for n in import_onnx(path)[0].nodes] == ["Sigmoid", "Mul"]


def test_nested_ones(tmp_path):
    """A gate whose input is the last operation of another pattern."""
    w = Writer()
    first = w("Mul", "x", w("Sigmoid", "x"))
    w("Mul", first, w("Sigmoid", first))
    path = write(tmp_path / "m.onnx", w.nodes, {"x": ("N", 4, 6)}, w.constants)
    module, _ = import_onnx(path)
    assert [n.op.type for n in module.nodes] == ["Swish", "Swish"]
    assert len({n.op.name for n in module.nodes}) == 2
