"""Fold batch norms of a frozen graph into the convolution or linear layer before them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from razordeploy.capture.graph import attribute

_aten = torch.ops.aten

WEIGHT_AXIS = {
    _aten.conv1d.default: 0,
    _aten.conv2d.default: 0,
    _aten.conv2d.padding: 0,
    _aten.conv3d.default: 0,
    _aten.linear.default: 0,
    _aten.conv_transpose1d.default: 1,
    _aten.conv_transpose2d.input: 1,
    _aten.conv_transpose3d.input: 1,
}
_BATCH_NORMS = {_aten.batch_norm.default, _aten._native_batch_norm_legit_no_training.default}
_GROUPS_ARGUMENT = {1: 6}
"""Position of ``groups`` among a transposed convolution's arguments, by its weight axis."""


KEEP = "keep_batch_norms"
"""Key of a graph module's ``meta``: what is folded is also kept, on the weight's node, for training it again."""


@dataclass(frozen=True, kw_only=True)
class FoldedNorm:
    """A layer and the batch norm behind it as they were before they became one."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    gamma: torch.Tensor
    """(C,) over the output channels; ones where the norm has no weight."""
    beta: torch.Tensor
    mean: torch.Tensor
    """Running mean (C,)."""
    var: torch.Tensor
    """Running variance (C,)."""
    eps: float
    momentum: float
    """Share of a new batch in the running statistics."""


def fold_batchnorm(graph_module: fx.GraphModule) -> None:
    """Fold ``y = (conv(x) - mean) / sqrt(var + eps) * gamma + beta`` into the weight and bias, in float64.

    A batch norm that follows something else becomes a multiplication and an addition per channel.
    """
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _BATCH_NORMS:
            continue
        affine = _affine(graph_module, node)
        if affine is None:
            continue
        producer = node.args[0]
        if not (isinstance(producer, fx.Node) and _fold_into(graph_module, producer, node, *affine)):
            _as_multiply_add(graph_module, node, *affine)
    graph.eliminate_dead_code()


def constant(graph_module: fx.GraphModule, node: object) -> torch.Tensor | None:
    """Value of a parameter's or buffer's node; None for anything else."""
    if isinstance(node, fx.Node) and node.op == "get_attr":
        return attribute(graph_module, str(node.target)).detach()
    return None


def _affine(graph_module: fx.GraphModule, node: fx.Node) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Per-channel ``(scale, shift)`` in float64; None when the statistics come from the batch itself."""
    if node.target is _aten.batch_norm.default:
        _, weight, bias, mean, var, training, _, eps = node.args[:8]
        if training:
            return None
    else:
        _, weight, bias, mean, var, _, eps = node.args[:7]
    mean_value, var_value = constant(graph_module, mean), constant(graph_module, var)
    if mean_value is None or var_value is None:
        return None
    gamma = constant(graph_module, weight)
    beta = constant(graph_module, bias)
    scale = (var_value.double() + float(eps)).rsqrt()  # type: ignore[arg-type]
    if gamma is not None:
        scale = scale * gamma.double()
    shift = -mean_value.double() * scale
    if beta is not None:
        shift = shift + beta.double()
    return scale, shift


def _fold_into(
    graph_module: fx.GraphModule, conv: fx.Node, bn: fx.Node, scale: torch.Tensor, shift: torch.Tensor
) -> bool:
    if conv.target not in WEIGHT_AXIS or len(conv.users) != 1:
        return False
    if conv.target is _aten.linear.default and len(_value(bn).shape) != 2:
        return False  # the batch norm's channel axis is not the linear layer's
    kept = _before_folding(graph_module, conv, bn)
    if not fold_affine(graph_module, conv, scale, shift):
        return False
    if kept is not None:
        conv.args[1].meta["folded_norm"] = kept  # type: ignore[union-attr]
    _replace(bn, conv)
    return True


def _value(bn: fx.Node) -> torch.Tensor:
    value = bn.meta["val"]
    output: torch.Tensor = value[0] if isinstance(value, (tuple, list)) else value
    return output


def _replace(bn: fx.Node, result: fx.Node) -> None:
    """Let ``result`` take the place of a batch norm, or of the first of the values that the functional form returns."""
    if bn.target is _aten.batch_norm.default:
        bn.replace_all_uses_with(result)
    else:
        for user in list(bn.users):  # getitem 0 is the output; the rest are saved statistics nobody reads in eval
            if user.args[1] == 0:
                user.replace_all_uses_with(result)
            if not user.users:
                bn.graph.erase_node(user)
    if not bn.users:
        bn.graph.erase_node(bn)


def _before_folding(graph_module: fx.GraphModule, conv: fx.Node, bn: fx.Node) -> FoldedNorm | None:
    """What ``_fold_into`` is about to make one; None where nobody asked, or a part of it is no plain parameter."""
    if not graph_module.meta.get(KEEP):
        return None
    is_plain = bn.target is _aten.batch_norm.default
    gamma, beta, mean, var = (constant(graph_module, n) for n in bn.args[1:5])
    weight = constant(graph_module, conv.args[1])
    bias = constant(graph_module, conv.args[2]) if len(conv.args) > 2 else None
    if weight is None or mean is None or var is None or WEIGHT_AXIS[conv.target] != 0:  # type: ignore[index]
        return None
    return FoldedNorm(
        weight=weight,
        bias=bias,
        gamma=torch.ones_like(mean) if gamma is None else gamma,
        beta=torch.zeros_like(mean) if beta is None else beta,
        mean=mean,
        var=var,
        eps=float(bn.args[7 if is_plain else 6]),  # type: ignore[arg-type]
        momentum=float(bn.args[6 if is_plain else 5]),  # type: ignore[arg-type]
    )


def fold_affine(graph_module: fx.GraphModule, layer: fx.Node, scale: torch.Tensor, shift: torch.Tensor) -> bool:
    """Make ``layer`` compute ``layer(x) * scale + shift``; False when its weight or bias is not a constant.

    Args:
        graph_module: the graph that ``layer`` belongs to.
        layer: a convolution, transposed convolution or linear layer.
        scale: float64 ``(C,)`` over the output channels.
        shift: float64 ``(C,)``.
    """
    axis = WEIGHT_AXIS[layer.target]  # type: ignore[index]
    weight = constant(graph_module, layer.args[1])
    bias_node = layer.args[2] if len(layer.args) > 2 else None
    bias = constant(graph_module, bias_node)
    if weight is None or (bias_node is not None and bias is None):
        return False
    groups = 1
    if axis == 1:
        position = _GROUPS_ARGUMENT[axis]
        groups = int(layer.args[position]) if len(layer.args) > position else 1  # type: ignore[arg-type]
    new_weight = _scale_weight(weight.double(), scale, axis, groups).to(weight.dtype)
    new_bias = (shift if bias is None else bias.double() * scale + shift).to(weight.dtype)
    path = str(layer.args[1].meta.get("origin", layer.args[1].target))  # type: ignore[union-attr]
    asks = trains(graph_module, layer.args[1])
    with graph_module.graph.inserting_before(layer):
        weight_node = new_buffer(graph_module, f"_folded_{layer.name}_weight", new_weight, path)
        bias_arg = new_buffer(graph_module, f"_folded_{layer.name}_bias", new_bias, path)
    for made in (weight_node, bias_arg):
        made.meta["trains"] = asks
    layer.args = (layer.args[0], weight_node, bias_arg, *layer.args[3:])
    return True


def trains(graph_module: fx.GraphModule, node: object) -> bool:
    """Whether the parameter behind ``node`` asks for a gradient."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return False
    return bool(node.meta.get("trains", attribute(graph_module, str(node.target)).requires_grad))


def _scale_weight(weight: torch.Tensor, scale: torch.Tensor, axis: int, groups: int) -> torch.Tensor:
    if axis == 0:
        return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    # A transposed convolution's weight is (in, out / groups, ...): the input channels of group g use its own scales.
    per_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    factors = scale.reshape(groups, 1, weight.shape[1], *[1] * (weight.dim() - 2))
    return (per_group * factors).reshape(weight.shape)


def new_buffer(graph_module: fx.GraphModule, name: str, value: torch.Tensor, origin: str) -> fx.Node:
    """Register ``value`` and read it where the graph inserts; ``origin`` is the parameter that it comes from."""
    graph_module.register_buffer(name, value.contiguous())
    node = graph_module.graph.get_attr(name)
    node.meta["val"] = value
    node.meta["origin"] = origin
    return node


def _as_multiply_add(graph_module: fx.GraphModule, bn: fx.Node, scale: torch.Tensor, shift: torch.Tensor) -> None:
    value = _value(bn)
    shape = (-1, *[1] * (len(value.shape) - 2))
    graph = graph_module.graph
    with graph.inserting_before(bn):
        gain = new_buffer(graph_module, f"_{bn.name}_scale", scale.reshape(shape).to(value.dtype), bn.name)
        offset = new_buffer(graph_module, f"_{bn.name}_shift", shift.reshape(shape).to(value.dtype), bn.name)
        gain.meta["trains"] = offset.meta["trains"] = trains(graph_module, bn.args[1])
        product = graph.call_function(_aten.mul.Tensor, (bn.args[0], gain))
        result = graph.call_function(_aten.add.Tensor, (product, offset))
    for new in (product, result):
        new.meta.update(bn.meta)
        new.meta["val"] = value
    _replace(bn, result)
