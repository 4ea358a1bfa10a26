"""Operation kinds: the vocabulary in which backend YAMLs speak of ATen operators."""

from __future__ import annotations

import operator

import torch
from torch import fx

from razordeploy.capture.graph import shape_of

_aten = torch.ops.aten

KINDS: dict[str, tuple[object, ...]] = {
    "conv1d": (_aten.conv1d.default,),
    "conv2d": (_aten.conv2d.default, _aten.conv2d.padding),
    "conv3d": (_aten.conv3d.default,),
    "conv_transpose1d": (_aten.conv_transpose1d.default,),
    "conv_transpose2d": (_aten.conv_transpose2d.input,),
    "conv_transpose3d": (_aten.conv_transpose3d.input,),
    "linear": (_aten.linear.default,),
    "matmul": (_aten.matmul.default, _aten.bmm.default, _aten.mm.default),
    "attention_scores": (),
    "attention_values": (),
    "add": (_aten.add.Tensor,),
    "sub": (_aten.sub.Tensor,),
    "mul": (_aten.mul.Tensor,),
    "div": (_aten.div.Tensor,),
    "cat": (_aten.cat.default, _aten.concat.default),
    "avg_pool": (_aten.avg_pool1d.default, _aten.avg_pool2d.default, _aten.avg_pool3d.default),
    "adaptive_avg_pool": (
        _aten.adaptive_avg_pool1d.default,
        _aten.adaptive_avg_pool2d.default,
        _aten.adaptive_avg_pool3d.default,
    ),
    "global_avg_pool": (),
    "mean": (_aten.mean.dim,),
    "max_pool": (
        _aten.max_pool1d.default,
        _aten.max_pool2d.default,
        _aten.max_pool3d.default,
        _aten.adaptive_max_pool2d.default,
    ),
    "reshape": (
        _aten.reshape.default,
        _aten.flatten.using_ints,
        _aten.squeeze.dim,
        _aten.squeeze.dims,
        _aten.squeeze.default,
        _aten.unsqueeze.default,
        _aten.unflatten.int,
    ),
    "transpose": (
        _aten.transpose.int,
        _aten.permute.default,
        _aten.t.default,
        _aten.swapaxes.default,
        _aten.movedim.int,
        _aten.numpy_T.default,
    ),
    "slice": (_aten.slice.Tensor, _aten.select.int, _aten.narrow.default, operator.getitem),
    "split": (
        _aten.split.Tensor,
        _aten.split_with_sizes.default,
        _aten.split.sizes,
        _aten.chunk.default,
        _aten.unbind.int,
        _aten.tensor_split.sections,
    ),
    "expand": (_aten.expand.default, _aten.repeat.default),
    "roll": (_aten.roll.default,),
    "pixel_shuffle": (_aten.pixel_shuffle.default, _aten.pixel_unshuffle.default, _aten.channel_shuffle.default),
    "upsample_nearest": (_aten.upsample_nearest2d.vec, _aten.upsample_nearest2d.default),
    "upsample_linear": (
        _aten.upsample_bilinear2d.vec,
        _aten.upsample_bilinear2d.default,
        _aten.upsample_bicubic2d.vec,
    ),
    "pad": (_aten.pad.default, _aten.constant_pad_nd.default),
    "relu": (_aten.relu.default,),
    "relu6": (_aten.hardtanh.default, _aten.relu6.default, _aten.clamp.default, _aten.clamp_min.default),
    "leaky_relu": (_aten.leaky_relu.default,),
    "prelu": (_aten.prelu.default,),
    "elu": (_aten.elu.default,),
    "hardswish": (_aten.hardswish.default,),
    "hardsigmoid": (_aten.hardsigmoid.default,),
    "sigmoid": (_aten.sigmoid.default,),
    "tanh": (_aten.tanh.default,),
    "silu": (_aten.silu.default,),
    "mish": (_aten.mish.default,),
    "gelu": (_aten.gelu.default,),
    "softmax": (_aten.softmax.int, _aten._softmax.default),
    "log_softmax": (_aten.log_softmax.int,),
    "layer_norm": (_aten.layer_norm.default, _aten.group_norm.default, _aten.instance_norm.default),
    "attention": (_aten.scaled_dot_product_attention.default,),
}
"""Kind -> ATen overloads. A convolution with one group per channel is of kind ``depthwise_conv{1,2,3}d``; a mean over
all axes behind the channels that keeps them, ``(N, C, 1, 1)``, is a ``global_avg_pool``; a product before a softmax is
``attention_scores``, one with its result ``attention_values``."""

_BY_TARGET = {target: kind for kind, targets in KINDS.items() for target in targets}
_GROUPS = {"conv1d": 6, "conv2d": 6, "conv3d": 6}
DEPTHWISE = tuple(f"depthwise_{kind}" for kind in _GROUPS)


def kind_of(node: fx.Node) -> str | None:
    """Kind of a graph node; None for what is not in the vocabulary."""
    if node.op != "call_function":
        return None
    kind = _BY_TARGET.get(node.target)
    if kind in _GROUPS:
        groups = node.args[_GROUPS[kind]] if len(node.args) > _GROUPS[kind] else node.kwargs.get("groups", 1)
        shape = shape_of(node.args[1]) if isinstance(node.args[1], fx.Node) else None
        if groups != 1 and shape is not None and shape[1] == 1:
            return f"depthwise_{kind}"
    if kind == "mean" and _is_global_pool(node):
        return "global_avg_pool"
    if kind == "matmul":
        return _attention_product(node) or kind
    if (kind == "pad" and not _pads_zeros(node)) or (node.target is operator.getitem and not _takes_a_part(node)):
        return None
    return kind


_SOFTMAX = (_aten.softmax.int, _aten._softmax.default)
_TO_SOFTMAX = {
    _aten.mul.Tensor,
    _aten.div.Tensor,
    _aten.add.Tensor,
    _aten.sub.Tensor,
    _aten.masked_fill.Scalar,
    _aten.where.self,
    _aten.reshape.default,
    _aten.unsqueeze.default,
    _aten.clamp.default,
}
_FROM_SOFTMAX = {_aten.reshape.default, _aten.expand.default, _aten.transpose.int, _aten.permute.default}
BETWEEN_PRODUCTS = {*_SOFTMAX, *_TO_SOFTMAX, *_FROM_SOFTMAX}
"""What may lie between the two products of an attention."""


def _takes_a_part(node: fx.Node) -> bool:
    """Tell whether an indexed tuple holds values of the tuple's own input: what an LSTM gives back are new ones."""
    source = node.args[0]
    return isinstance(source, fx.Node) and _BY_TARGET.get(source.target) in ("split", "max_pool")


def _attention_product(node: fx.Node) -> str | None:
    """``attention_scores`` for a product that a softmax follows, ``attention_values`` for one with its result."""
    source = node.args[0]
    while isinstance(source, fx.Node) and source.target in _FROM_SOFTMAX:
        source = source.args[0]
    if isinstance(source, fx.Node) and source.target in _SOFTMAX:
        return "attention_values"
    stack, seen = list(node.users), set()
    while stack:
        user = stack.pop()
        if user in seen:
            continue
        seen.add(user)
        if user.target in _SOFTMAX:
            return "attention_scores"
        if user.target in _TO_SOFTMAX:
            stack.extend(user.users)
    return None


def _is_global_pool(node: fx.Node) -> bool:
    shape = shape_of(node.args[0]) if isinstance(node.args[0], fx.Node) else None
    keeps = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
    if shape is None or len(shape) < 3 or not keeps or not isinstance(node.args[1], (list, tuple)):
        return False
    return sorted(int(a) % len(shape) for a in node.args[1]) == list(range(2, len(shape)))  # type: ignore[arg-type]


def _pads_zeros(node: fx.Node) -> bool:
    """Only zero is sure to be a point of every grid."""
    mode = "constant"
    value: object = 0.0
    if node.target is _aten.pad.default:
        mode = str(node.args[2]) if len(node.args) > 2 else str(node.kwargs.get("mode", "constant"))
        value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
        if mode != "constant":
            return True
    elif len(node.args) > 2:
        value = node.args[2]
    return not value
