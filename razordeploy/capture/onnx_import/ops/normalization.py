"""Batch, layer, instance, group and local response normalization."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from razordeploy.capture.onnx_import.op import Op, Rule

PER_CHANNEL = "per_channel"
"""Our own attribute of a group norm: scale and bias are per channel, as they are since opset 21."""


def _batch_norm(op: Op, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if op.get("training_mode", 0) or op.outputs > 1:
        raise op.refuse("it is in training mode", hint="export the model in eval mode")
    if not op.get("spatial", 1):
        raise op.refuse("spatial=0 is not supported", hint="export with opset 9 or later")
    return functional.batch_norm(x, mean, var, scale, bias, training=False, eps=op.get("epsilon", 1e-5))


def _instance_norm(op: Op, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.instance_norm(x, weight=scale, bias=bias, eps=op.get("epsilon", 1e-5))


def _layer_norm(op: Op, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    if op.outputs > 1:
        raise op.refuse("its outputs Mean and InvStdDev are not supported")
    axis = op.get("axis", -1) % x.dim()
    shape = list(x.shape[axis:])
    eps = op.get("epsilon", 1e-5)
    if list(scale.shape) == shape and (bias is None or list(bias.shape) == shape):
        return functional.layer_norm(x, shape, scale, bias, eps)
    result = functional.layer_norm(x, shape, None, None, eps) * scale
    return result if bias is None else result + bias


def _group_norm(op: Op, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups, eps = op.get("num_groups"), op.get("epsilon", 1e-5)
    if op.version < 21 and not op.get(PER_CHANNEL, 0):
        repeats = int(x.shape[1]) // groups
        scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return functional.group_norm(x, groups, scale.reshape(-1), bias.reshape(-1), eps)


def _rms_norm(op: Op, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(op.get("axis", -1) % x.dim(), x.dim()))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + op.get("epsilon", 1e-5)) * scale


def _local_response(op: Op, x: Tensor) -> Tensor:
    """``x / (bias + alpha / size * sum of squares over neighbouring channels) ** beta``."""
    size = op.get("size")
    squares = functional.pad(x.square().unsqueeze(1), [0] * (2 * (x.dim() - 2)) + [(size - 1) // 2, size // 2])
    sums = squares.squeeze(1).unfold(1, size, 1).sum(-1)
    return x / (op.get("bias", 1.0) + op.get("alpha", 1e-4) / size * sums) ** op.get("beta", 0.75)


def _lp_norm(op: Op, x: Tensor) -> Tensor:
    order = op.get("p", 2)
    norm = torch.linalg.vector_norm(x, order, op.get("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


def _mean_variance(op: Op, x: Tensor) -> Tensor:
    axes = list(op.get("axes") or (0, 2, 3))
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


RULES = {
    "BatchNormalization": Rule(run=_batch_norm),
    "GroupNormalization": Rule(run=_group_norm),
    "InstanceNormalization": Rule(run=_instance_norm),
    "LRN": Rule(run=_local_response),
    "LayerNormalization": Rule(run=_layer_norm),
    "LpNormalization": Rule(run=_lp_norm),
    "MeanVarianceNormalization": Rule(run=_mean_variance),
    "RMSNormalization": Rule(run=_rms_norm),
}
