"""Write as one operation what an exporter took apart, so that it is planned, reported and run as in torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from razordeploy.capture.onnx_import.graph import OnnxGraph, OnnxNode, pruned
from razordeploy.capture.onnx_import.op import Op
from razordeploy.capture.onnx_import.ops.normalization import PER_CHANNEL
from razordeploy.capture.onnx_import.patterns import Call, Finder, Match, call, either

Constants = Mapping[str, np.ndarray]
Made = tuple[str, tuple[str, ...], dict[str, Any]]
"""Operator type, inputs and attributes of what takes a match's place."""


def recompose(graph: OnnxGraph) -> OnnxGraph:
    """Return the graph with every match of the patterns below as one node, called as what it was part of."""
    finder = Finder(graph)
    gone: set[int] = set()
    nodes: list[OnnxNode] = []
    for node in reversed(graph.nodes):
        if id(node) in gone:
            continue
        found = _replaced(finder, node, graph.constants)
        if found is None:
            nodes.append(node)
        else:
            made, match = found
            gone |= {id(part) for part in match.nodes}
            nodes.append(_node(made, match, {n.op.name for n in nodes}))
    return pruned(replace(graph, nodes=tuple(reversed(nodes))))


def _replaced(finder: Finder, node: OnnxNode, constants: Constants) -> tuple[Made, Match] | None:
    for pattern, make in _PATTERNS.get(node.op.type, ()):
        match = finder.find(pattern, node)
        made = None if match is None else make(match, constants)
        if match is not None and made is not None:
            return made, match
    return None


def _node(made: Made, match: Match, taken: set[str]) -> OnnxNode:
    kind, inputs, attributes = made
    last = match.nodes[0]
    scopes = {node.op.name.rpartition("/")[0] for node in match.nodes}
    scope = scopes.pop() if len(scopes) == 1 else ""
    name = f"{scope}/{kind}" if scope else last.op.name
    op = Op(name=last.op.name if name in taken else name, type=kind, version=last.op.version, attributes=attributes)
    return OnnxNode(op=op, inputs=inputs, outputs=last.outputs[:1])


def _plain(kind: str, **attributes: Any) -> Callable[[Match, Constants], Made]:
    return lambda match, constants: (kind, (match.values["x"],), attributes)


def _layer_norm(match: Match, constants: Constants) -> Made | None:
    names = match.values
    parts = tuple(names[key] for key in ("scale", "bias") if key in names)
    arrays = [constants.get(name) for name in parts]
    eps = constants.get(names["eps"])
    if eps is None or eps.size != 1 or any(a is None or a.ndim != 1 for a in arrays):
        return None
    return "LayerNormalization", (names["x"], *parts), {"axis": -1, "epsilon": float(eps.item())}


def _group_norm(match: Match, constants: Constants) -> Made | None:
    names = match.values
    shape, ones, zeros, scale, bias = (constants.get(names[k]) for k in ("groups", "ones", "zeros", "scale", "bias"))
    if shape is None or ones is None or zeros is None or scale is None or bias is None:
        return None
    per_channel = all(a.ndim > 1 and a.size == a.shape[0] and a.ndim == scale.ndim for a in (scale, bias))
    plain = bool((ones == 1).all() and (zeros == 0).all())
    if not per_channel or not plain or shape.size != 3 or shape[0] != 0 or shape[2] != -1:
        return None
    norm = next(node for node in match.nodes if node.op.type == "InstanceNormalization")
    attributes = {"num_groups": int(shape[1]), "epsilon": norm.op.get("epsilon", 1e-5), PER_CHANNEL: 1}
    return "GroupNormalization", (names["x"], names["scale"], names["bias"]), attributes


def _over_last_axis(node: OnnxNode, constants: Constants) -> bool:
    axes = node.op.get("axes")
    if len(node.inputs) > 1:
        axes = constants.get(node.inputs[1])
    return axes is not None and [int(a) for a in axes] == [-1] and bool(node.op.get("keepdims", 1))


def _sixth(node: OnnxNode, constants: Constants) -> bool:
    return math.isclose(node.op.get("alpha", 0.2), 1 / 6, rel_tol=1e-4) and node.op.get("beta", 0.5) == 0.5


def _zero_to_six(node: OnnxNode, constants: Constants) -> bool:
    given = [constants.get(name) for name in node.inputs[1:3]]
    low, high = given if len(given) == 2 else (node.op.get("min"), node.op.get("max"))
    return low is not None and high is not None and float(low) == 0 and float(high) == 6


def _layer_norm_patterns() -> list[Call]:
    centred = call("Sub", "x", call("ReduceMean", "x", holds=_over_last_axis))
    square = either(call("Pow", centred, 2.0), call("Mul", centred, centred))
    deviation = call("Sqrt", call("Add", call("ReduceMean", square, holds=_over_last_axis), "eps"))
    normal = either(call("Div", centred, deviation), call("Mul", centred, call("Reciprocal", deviation)))
    scaled = call("Mul", normal, "scale")
    return [call("Add", scaled, "bias"), scaled]


def _gelu_patterns() -> list[Call]:
    """``0.5 x (1 + erf(x / sqrt(2)))``, whichever product comes first."""
    inner = either(call("Div", "x", math.sqrt(2)), call("Mul", "x", math.sqrt(0.5)))
    return _halved(call("Add", call("Erf", inner), 1.0))


def _tanh_gelu_patterns() -> list[Call]:
    """``0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``."""
    cube = either(call("Pow", "x", 3.0), call("Mul", call("Mul", "x", "x"), "x"))
    inner = call("Mul", call("Add", "x", call("Mul", cube, 0.044715)), math.sqrt(2 / math.pi))
    return _halved(call("Add", call("Tanh", inner), 1.0))


def _halved(gate: Call) -> list[Call]:
    return [
        call("Mul", call("Mul", "x", gate), 0.5),
        call("Mul", call("Mul", "x", 0.5), gate),
        call("Mul", call("Mul", gate, 0.5), "x"),
    ]


_GATE = call("Clip", call("Add", "x", 3.0), holds=_zero_to_six)
_RELU6 = either(_GATE, call("Min", call("Max", call("Add", "x", 3.0), 0.0), 6.0))
_GROUPED = call("InstanceNormalization", call("Reshape", "x", "groups"), "ones", "zeros")
_FORMS: list[tuple[Call, Callable[[Match, Constants], Made | None]]] = [
    *((pattern, _layer_norm) for pattern in _layer_norm_patterns()),
    (call("Add", call("Mul", call("Reshape", _GROUPED, "shape"), "scale"), "bias"), _group_norm),
    *((pattern, _plain("Gelu")) for pattern in _gelu_patterns()),
    *((pattern, _plain("Gelu", approximate="tanh")) for pattern in _tanh_gelu_patterns()),
    (call("Mul", "x", call("HardSigmoid", "x", holds=_sixth)), _plain("HardSwish")),
    (call("Div", call("Mul", "x", _RELU6), 6.0), _plain("HardSwish")),
    (call("Mul", "x", call("Div", _RELU6, 6.0)), _plain("HardSwish")),
    (call("Mul", call("Mul", "x", _RELU6), 1 / 6), _plain("HardSwish")),
    (call("Mul", "x", call("Sigmoid", "x")), _plain("Swish")),
    (call("Mul", "x", call("Tanh", call("Softplus", "x"))), _plain("Mish")),
]
_PATTERNS: dict[str, list[tuple[Call, Callable[[Match, Constants], Made | None]]]] = {
    kind: [form for form in _FORMS if form[0].type == kind] for kind in {form[0].type for form in _FORMS}
}
