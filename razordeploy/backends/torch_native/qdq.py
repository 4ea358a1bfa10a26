"""The captured graph as Inductor's x86 fusions want to see it: quantize-dequantize pairs and integer weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from razordeploy.capture.graph import CapturedModel, attribute, flat_nodes, is_float, output_node
from razordeploy.errors import BackendError
from razordeploy.quantization.op_kinds import kind_of
from razordeploy.quantization.plan import QParams, QuantPlan, QuantPoint
from razordeploy.quantization.qparams import quantize

ORIGIN = "razordeploy"
"""Key in a node's ``custom`` metadata, which export and compiler carry along: name of the captured node."""
SCALE = "_razordeploy_scale_"
"""Prefix of the buffers that hold weight scales; the name of the captured operation follows."""
_MOVES = ("reshape", "transpose", "slice", "split", "expand", "roll", "pixel_shuffle")
"""Kinds that move integers as they move floats. Others are fused from the pairs around them."""


def float_graph(captured: CapturedModel) -> fx.GraphModule:
    """Return a copy that takes tensors and returns a flat tuple of tensors."""
    return _finish(_Copy(captured))


def quantized_graph(captured: CapturedModel, plan: QuantPlan, params: Mapping[str, QParams]) -> fx.GraphModule:
    """Return the same copy with every point of ``plan`` written out."""
    copy = _Copy(captured)
    for i, point in enumerate(plan.points):
        if point.kind == "weight":
            copy.weight(i, point, params[point.group])
        else:
            copy.activation(point, params[point.group])
    return _finish(copy)


class _Copy:
    """A copy of a captured graph while pairs are written into it."""

    def __init__(self, captured: CapturedModel) -> None:
        # Defines torch.ops.quantized_decomposed, the operators that the fusions match.
        import torch.ao.quantization.fx._decomposed  # noqa: F401

        self.captured = captured
        self.graph = fx.Graph()
        self.nodes: dict[str, fx.Node] = {}
        self.integers: dict[tuple[str, str], fx.Node] = {}
        for node in captured.graph.nodes:
            if node.op == "placeholder" and not isinstance(node.meta.get("val"), torch.Tensor):
                if node.users:
                    raise BackendError(f"torch_native engines take tensors only; input '{node.name}' is none")
                continue
            if node.op == "output":
                self.nodes[node.name] = self.graph.output(tuple(self.nodes[n.name] for n in flat_nodes(node.args[0])))
                continue
            copied = self.graph.node_copy(node, lambda n: self.nodes[n.name])
            copied.meta = {**node.meta, "custom": {ORIGIN: node.name}}
            self.nodes[node.name] = copied
        self.source = {node.name: node for node in captured.graph.nodes}
        self.module = fx.GraphModule(captured.graph_module, self.graph)

    def activation(self, point: QuantPoint, q: QParams) -> None:
        """Write one pair after a value, for the point's users."""
        ops = torch.ops.quantized_decomposed
        dtype = torch.int8 if point.scheme.signed else torch.uint8
        grid = (float(q.scale), int(q.zero_point), point.scheme.qmin, point.scheme.qmax, dtype)
        value = self.nodes[point.node]
        integers = self._moved(point)
        if integers is None:
            with self.graph.inserting_after(value):
                integers = self._call(ops.quantize_per_tensor.default, (value, *grid), point.node)
        self.integers[point.node, point.group] = integers
        with self.graph.inserting_after(integers):
            pair = self._call(ops.dequantize_per_tensor.default, (integers, *grid), point.node)
        for user in point.users:
            self._target(user).replace_input_with(value, pair)

    def _moved(self, point: QuantPoint) -> fx.Node | None:
        """The integers of a value that was only moved: moved themselves, where those before the move are at hand."""
        if kind_of(self.source[point.node]) not in _MOVES:
            return None
        moves = [self.source[point.node]]
        while moves[-1].args and isinstance(origin := moves[-1].args[0], fx.Node) and not is_float(origin):
            moves.append(origin)  # a tuple of tensors: its parts are on grids, not itself
        origin = moves[-1].args[0]
        integers = self.integers.get((origin.name, point.group)) if isinstance(origin, fx.Node) else None
        if integers is None:
            return None
        anchor, moved = self.nodes[point.node], {origin: integers}
        for move in reversed(moves):
            with self.graph.inserting_after(anchor):
                anchor = self.graph.node_copy(move, lambda n: moved.get(n) or self.nodes[n.name])
            anchor.meta = {"custom": {ORIGIN: move.name}}
            moved[move] = anchor
        return anchor

    def weight(self, index: int, point: QuantPoint, q: QParams) -> None:
        """Replace a weight by integers; every operation that reads it gets scales under its own name."""
        value = self.nodes[point.node]
        tensor = attribute(self.captured.graph_module, str(value.target)).detach()
        integers, axis = quantize(tensor, q), point.scheme.ch_axis or 0
        name = f"_razordeploy_weight_{index}"
        self.module.register_buffer(name, integers)
        # The fusions know per-channel weights only: one scale for all channels is repeated.
        scale = q.scale.expand(tensor.shape[axis]).clone()
        zero_point = q.zero_point.expand(tensor.shape[axis]).clone()
        for user in point.users:
            self.module.register_buffer(f"{SCALE}{user}", scale.clone())
            self.module.register_buffer(f"_razordeploy_zero_{user}", zero_point.clone())
            target = self._target(user)
            with self.graph.inserting_before(target):
                constants = [self.graph.get_attr(n) for n in (name, f"{SCALE}{user}", f"_razordeploy_zero_{user}")]
                limits = (axis, point.scheme.qmin, point.scheme.qmax, torch.int8)
                operator = torch.ops.quantized_decomposed.dequantize_per_channel.default
                target.replace_input_with(value, self._call(operator, (*constants, *limits), point.node))

    def _target(self, user: str) -> fx.Node:
        return output_node(self.graph) if user not in self.nodes else self.nodes[user]

    def _call(self, operator: torch._ops.OpOverload, args: tuple[object, ...], origin: str) -> fx.Node:
        node = self.graph.call_function(operator, args)  # type: ignore[arg-type]
        node.meta["custom"] = {ORIGIN: origin}
        return node


def _finish(copy: _Copy) -> fx.GraphModule:
    copy.graph.eliminate_dead_code()
    copy.graph.lint()
    copy.module.recompile()
    copy.module.delete_all_unused_submodules()
    return copy.module
