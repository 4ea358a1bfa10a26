"""The quantized model in torch: the float graph with every planned value rounded to its grid.

Convolutions (transposed ones too), linear layers and matrix products whose two operands are on a grid compute as
integer kernels do: products of integers are summed without rounding, then scaled once. Summing the dequantized floats
instead differs from the engine in the last bit, which flips values that lie on a rounding boundary and, layer after
layer, drifts away from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from razordeploy.capture.fast import fast_linear
from razordeploy.capture.graph import CapturedModel, attribute
from razordeploy.quantization.op_kinds import KINDS
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.qparams import fake_quantize, quantize

_CHANNEL_FIRST = {t for kind in ("conv1d", "conv2d", "conv3d") for t in KINDS[kind]}
_TRANSPOSED = {t for kind in ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d") for t in KINDS[kind]}
_CHANNEL_LAST = set(KINDS["linear"])
_PRODUCTS = set(KINDS["matmul"])
_MOVING = ("max_pool", "reshape", "transpose", "slice", "split", "expand", "roll", "pixel_shuffle", "upsample_nearest")
_GROUPS = 3
"""Position of the groups among a transposed convolution's arguments behind the bias."""


def simulate(captured: CapturedModel, plan: QuantPlan, params: Mapping[str, QParams]) -> fx.GraphModule:
    """Return a copy of the captured graph that rounds every planned value to its grid.

    Parameters that are not quantized are shared with ``captured``; quantized weights are rounded once, here.
    """
    module, by_name = graph_copy(captured)
    graph = module.graph
    grids: dict[fx.Node, QParams] = {}
    for i, point in enumerate(plan.points):
        value, qparams = by_name[point.node], params[point.group]
        if point.kind == "weight":
            weight = attribute(captured.graph_module, str(value.target)).detach()
            module.register_buffer(f"_weight_{i}", fake_quantize(weight, qparams))
            with graph.inserting_after(value):
                rounded = graph.get_attr(f"_weight_{i}")
        else:
            module.add_submodule(f"_fake_quant_{i}", _FakeQuant(qparams))
            with graph.inserting_after(value):
                rounded = graph.call_module(f"_fake_quant_{i}", (value,))
        grids[rounded] = qparams
        for user in point.users:
            by_name[user].replace_input_with(value, rounded)
    _integer_kernels(module, grids, plan)
    graph.eliminate_dead_code()
    module.recompile()
    return module


def graph_copy(captured: CapturedModel) -> tuple[fx.GraphModule, dict[str, fx.Node]]:
    """A copy of the captured graph that can be changed, its nodes by their names in the captured one."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(captured.graph, copied))
    module = fx.GraphModule(captured.graph_module, graph)
    by_name = {node.name: twin for node, twin in copied.items()}
    by_name["output"] = next(n for n in module.graph.nodes if n.op == "output")
    return module, by_name


class _FakeQuant(torch.nn.Module):
    def __init__(self, params: QParams) -> None:
        super().__init__()
        self.params = params

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fake_quantize(x, self.params)


class _IntegerKernel(torch.nn.Module):
    """``y = (sum of integer products) * (input scale * weight scale) + bias``, the sum exact below 2**24."""

    scale: torch.Tensor
    bias: torch.Tensor | None

    def __init__(
        self,
        target: Any,
        arguments: tuple[Any, ...],
        x: QParams,
        weight: torch.Tensor,
        w: QParams,
        bias: Any,
        kind: str,
    ) -> None:
        super().__init__()
        self.target, self.arguments = fast_linear if target in _CHANNEL_LAST else target, arguments
        integers = quantize(weight, w).float() - _broadcast(w.zero_point.float(), weight.dim(), w.scheme.ch_axis)
        self.register_buffer("weight", integers)
        self.input_scale = float(x.scale)
        scale = (x.scale.double() * w.scale.double()).float()
        if target in _TRANSPOSED and scale.dim() and len(arguments) > _GROUPS:
            scale = scale.repeat(arguments[_GROUPS])  # its weight is (in, out / groups, ...): one scale for each group
        dims = 1 if target in _CHANNEL_LAST else weight.dim() - 1
        shape = (-1, *[1] * (dims - 1))
        self.register_buffer("scale", scale.reshape(shape) if scale.dim() else scale)
        if bias is not None and kind == "int32":
            bias = (bias.double() / scale.double()).round() * scale.double()
        self.register_buffer("bias", None if bias is None else bias.float().reshape(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.target((x / self.input_scale).round_(), self.weight, None, *self.arguments)
        total = total.mul_(self.scale)
        return total if self.bias is None else total.add_(self.bias)


class _IntegerProduct(torch.nn.Module):
    """``y = (sum of integer products) * (left scale * right scale)`` of two activations, each with one scale."""

    def __init__(self, target: Any, left: QParams, right: QParams) -> None:
        super().__init__()
        self.target = target
        self.left_scale, self.right_scale = float(left.scale), float(right.scale)
        self.scale = float((left.scale.double() * right.scale.double()).float())

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self.target((left / self.left_scale).round_(), (right / self.right_scale).round_())
        return product.mul_(self.scale)


def _broadcast(value: torch.Tensor, dims: int, axis: int | None) -> torch.Tensor:
    if axis is None or value.dim() == 0:
        return value
    shape = [1] * dims
    shape[axis] = -1
    return value.reshape(shape)


def _integer_kernels(module: fx.GraphModule, grids: Mapping[fx.Node, QParams], plan: QuantPlan) -> None:
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _CHANNEL_FIRST | _TRANSPOSED | _CHANNEL_LAST | _PRODUCTS:
            continue
        x = _grid_of(node.args[0], grids)
        if node.target in _PRODUCTS:
            y = _grid_of(node.args[1], grids)
            if x is not None and y is not None and not x.scale.dim() and not y.scale.dim():
                _replace(module, node, _IntegerProduct(node.target, x, y), node.args)
            continue
        w = grids.get(node.args[1])
        bias_node = node.args[2] if len(node.args) > 2 else None
        if x is None or w is None or x.scale.dim() or (bias_node is not None and bias_node.op != "get_attr"):
            continue
        bias = None if bias_node is None else attribute(module, str(bias_node.target)).detach()
        weight = attribute(module, str(node.args[1].target))
        kernel = _IntegerKernel(node.target, node.args[3:], x, weight, w, bias, plan.bias)
        _replace(module, node, kernel, node.args[:1])


def _replace(module: fx.GraphModule, node: fx.Node, kernel: torch.nn.Module, args: tuple[Any, ...]) -> None:
    """Put a submodule in the node's place, under the node's name."""
    graph, name = module.graph, f"_kernel_{node.name}"
    module.add_submodule(name, kernel)
    with graph.inserting_before(node):
        call = graph.call_module(name, args)
    node.replace_all_uses_with(call)
    graph.erase_node(node)
    call.name = node.name


def _grid_of(node: Any, grids: Mapping[fx.Node, QParams]) -> QParams | None:
    """Grid that a value lies on, looking through operations that only move values."""
    moving = {t for kind in _MOVING for t in KINDS[kind]}
    while isinstance(node, fx.Node) and node not in grids and node.target in moving:
        node = node.args[0]
    return grids.get(node) if isinstance(node, fx.Node) else None
