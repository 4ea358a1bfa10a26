"""Fold constant factors and offsets per channel into the convolution or linear layer that they follow."""

from __future__ import annotations

import math

import torch
from torch import fx

from razordeploy.capture.batchnorm import WEIGHT_AXIS, fold_affine
from razordeploy.capture.graph import attribute, shape_of

_aten = torch.ops.aten
FACTORS = {_aten.mul.Tensor, _aten.mul.Scalar, _aten.div.Tensor, _aten.div.Scalar}
OFFSETS = {_aten.add.Tensor, _aten.add.Scalar, _aten.sub.Tensor, _aten.sub.Scalar}
DIVIDES = {_aten.div.Tensor, _aten.div.Scalar}
SUBTRACTS = {_aten.sub.Tensor, _aten.sub.Scalar}
_COMMUTES = {_aten.mul.Tensor, _aten.add.Tensor}
_PERMUTES = {_aten.permute.default}
_SWAPS = {_aten.transpose.int, _aten.swapaxes.default}
_RESHAPES = {_aten.reshape.default, _aten.flatten.using_ints, _aten.unsqueeze.default, _aten.squeeze.dim}


def fold_constant_affine(graph_module: fx.GraphModule) -> None:
    """``conv(x) * gamma + beta`` with constants per channel (or scalars) becomes one ``conv``, in float64.

    Looks through reshapes and transpositions that keep the channels together, where nothing else reads what lies
    between: so layer scale (Touvron et al., 2021, eq. 5) and batch norms behind a flattening cost nothing.
    """
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in FACTORS | OFFSETS or node.kwargs:
            continue
        split = value_and_constant(graph_module, node)
        if split is None:
            continue
        value, constant = split
        found = _producer(value)
        if found is None:
            continue
        producer, axis = found
        vector = per_channel(constant, shape_of(node), axis, _channels(graph_module, producer))
        if vector is None:
            continue
        scale, shift = torch.ones_like(vector), torch.zeros_like(vector)
        if node.target in FACTORS:
            scale = 1 / vector if node.target in DIVIDES else vector
        else:
            shift = -vector if node.target in SUBTRACTS else vector
        if fold_affine(graph_module, producer, scale, shift):
            node.replace_all_uses_with(value)
            graph.erase_node(node)
    graph.eliminate_dead_code()


def value_and_constant(graph_module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, torch.Tensor] | None:
    """The value and the float64 constant that ``node`` joins; None for two values, and for a constant over a value."""
    left, right = node.args[:2]
    pairs = [(left, right)] + ([(right, left)] if node.target in _COMMUTES else [])
    for value, other in pairs:
        if not isinstance(value, fx.Node) or value.op == "get_attr":
            continue
        if isinstance(other, (int, float)) and not isinstance(other, bool):
            return value, torch.tensor(float(other), dtype=torch.float64)
        if isinstance(other, fx.Node) and other.op == "get_attr":
            return value, attribute(graph_module, str(other.target)).detach().double()
    return None


def _producer(value: fx.Node) -> tuple[fx.Node, int] | None:
    """The layer that ``value`` comes from, read by nothing else, and the axis of ``value`` that its channels are on."""
    chain = []
    while value.target not in WEIGHT_AXIS:
        if len(value.users) != 1 or value.target not in _PERMUTES | _SWAPS | _RESHAPES:
            return None
        chain.append(value)
        source = value.args[0]
        if not isinstance(source, fx.Node):
            return None
        value = source
    shape = shape_of(value)
    if len(value.users) != 1 or shape is None:
        return None
    axis = len(shape) - 1 if value.target is _aten.linear.default else 1
    for step in reversed(chain):
        moved = _moved(step, axis)
        if moved is None:
            return None
        axis = moved
    return value, axis


def _moved(step: fx.Node, axis: int) -> int | None:
    """Where ``axis`` of the input of a reshape or transposition lies in its output; None where it is torn apart."""
    before, after = shape_of(step.args[0]), shape_of(step)  # type: ignore[arg-type]
    if before is None or after is None:
        return None
    rank = len(before)
    if step.target in _PERMUTES:
        order = [int(a) % rank for a in step.args[1]]  # type: ignore[union-attr, arg-type]
        return order.index(axis)
    if step.target in _SWAPS:
        first, second = (int(a) % rank for a in step.args[1:3])  # type: ignore[arg-type]
        return {first: second, second: first}.get(axis, axis)
    tail = before[axis + 1 :]
    if not isinstance(before[axis], int) or not all(isinstance(d, int) for d in tail):
        return None
    for i, size in enumerate(after):
        rest = after[i + 1 :]
        if (
            isinstance(size, int)
            and size == before[axis]
            and all(isinstance(d, int) for d in rest)
            and math.prod(rest) == math.prod(tail)
        ):
            return i
    return None


def _channels(graph_module: fx.GraphModule, producer: fx.Node) -> int:
    shape = shape_of(producer)
    assert shape is not None
    return int(shape[-1] if producer.target is _aten.linear.default else shape[1])


def per_channel(
    constant: torch.Tensor, shape: tuple[object, ...] | None, axis: int, channels: int
) -> torch.Tensor | None:
    """``constant`` as a vector ``(channels,)`` over ``axis`` of ``shape``; None when it differs along another axis."""
    if constant.numel() == 1:
        return constant.reshape(1).expand(channels).clone()
    if shape is None or constant.numel() != channels or constant.dim() > len(shape):
        return None
    aligned = [1] * (len(shape) - constant.dim()) + list(constant.shape)
    return constant.reshape(channels) if aligned[axis] == channels else None
