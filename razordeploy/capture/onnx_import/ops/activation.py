"""Activations, Clip, Softmax and Dropout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from razordeploy.capture.onnx_import.op import Op, Rule


def _plain(function: Callable[[Tensor], Tensor]) -> Rule:
    return Rule(run=lambda op, x: function(x))


def _prelu(op: Op, x: Tensor, slope: Tensor) -> Tensor:
    """One slope for all or one a channel, as torch has it; any other shape is written out."""
    shape = [1] * (x.dim() - slope.dim()) + list(slope.shape)
    if slope.numel() == 1 or (x.dim() > 1 and shape[1] == x.shape[1] and shape.count(1) == x.dim() - 1):
        return functional.prelu(x, slope.reshape(-1))
    return torch.where(x > 0, x, slope * x)


def _hard_sigmoid(op: Op, x: Tensor) -> Tensor:
    alpha, beta = op.get("alpha", 0.2), op.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return functional.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


def _gelu(op: Op, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=op.get("approximate", "none"))


def _swish(op: Op, x: Tensor) -> Tensor:
    alpha = op.get("alpha", 1.0)
    return functional.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


def _thresholded_relu(op: Op, x: Tensor) -> Tensor:
    return torch.where(x > op.get("alpha", 1.0), x, torch.zeros_like(x))


def _shrink(op: Op, x: Tensor) -> Tensor:
    bias, limit = op.get("bias", 0.0), op.get("lambd", 0.5)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, torch.zeros_like(x)))


def _clip(op: Op, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    minimum, maximum = _bound(op, "min", low), _bound(op, "max", high)
    if minimum == 0 and maximum is None and x.is_floating_point():
        return functional.relu(x)
    if minimum is None and maximum is None:
        return x
    if x.is_floating_point() and minimum is not None and maximum is not None:
        return functional.hardtanh(x, minimum, maximum)
    return torch.clamp(x, minimum, maximum)


def _bound(op: Op, name: str, given: np.ndarray | None) -> Any:
    """The bound, an input since opset 11; None where it bounds nothing."""
    value = op.get(name) if given is None else given.reshape(-1)[0].item()
    limit = float(np.finfo(np.float32).max)
    return None if value is None or (isinstance(value, float) and abs(value) >= limit) else value


def _softmax(op: Op, x: Tensor, log: bool = False) -> Tensor:
    run = functional.log_softmax if log else functional.softmax
    if op.version >= 13:
        return run(x, op.get("axis", -1))
    axis = op.get("axis", 1) % x.dim()
    if axis == x.dim() - 1:
        return run(x, -1)
    return run(x.flatten(axis), -1).reshape(x.shape)  # before opset 13 all axes from this one on are one


def _log_softmax(op: Op, x: Tensor) -> Tensor:
    return _softmax(op, x, log=True)


def _dropout(op: Op, x: Tensor, ratio: Any = None, training: Any = None) -> Tensor:
    if op.outputs > 1:
        raise op.refuse("its second output, the mask, is not supported")
    if training is not None and bool(training):
        raise op.refuse("it is in training mode", hint="export the model in eval mode")
    return x


RULES = {
    "Celu": Rule(run=lambda op, x: functional.celu(x, op.get("alpha", 1.0))),
    "Clip": Rule(run=_clip, known=(1, 2)),
    "Dropout": Rule(run=_dropout, known=(1, 2)),
    "Elu": Rule(run=lambda op, x: functional.elu(x, op.get("alpha", 1.0))),
    "Gelu": Rule(run=_gelu),
    "HardSigmoid": Rule(run=_hard_sigmoid),
    "HardSwish": _plain(functional.hardswish),
    "LeakyRelu": Rule(run=lambda op, x: functional.leaky_relu(x, op.get("alpha", 0.01))),
    "LogSoftmax": Rule(run=_log_softmax),
    "Mish": _plain(functional.mish),
    "PRelu": Rule(run=_prelu),
    "Relu": _plain(functional.relu),
    "Selu": Rule(
        run=lambda op, x: op.get("gamma", 1.0507009873554805) * functional.elu(x, op.get("alpha", 1.6732632423543772))
    ),
    "Shrink": Rule(run=_shrink),
    "Sigmoid": _plain(torch.sigmoid),
    "Softmax": Rule(run=_softmax),
    "Softplus": _plain(functional.softplus),
    "Softsign": _plain(functional.softsign),
    "Swish": Rule(run=_swish),
    "Tanh": _plain(torch.tanh),
    "ThresholdedRelu": Rule(run=_thresholded_relu),
}
