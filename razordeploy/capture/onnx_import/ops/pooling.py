"""Pooling over windows and over whole images."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from razordeploy.capture.onnx_import.op import Op, Rule
from razordeploy.capture.onnx_import.windows import padded, windows

_MAX = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}
_AVERAGE = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}
_GLOBAL_AVERAGE: dict[int, Any] = {
    3: functional.adaptive_avg_pool1d,
    4: functional.adaptive_avg_pool2d,
    5: functional.adaptive_avg_pool3d,
}


def _check(op: Op, x: Tensor) -> list[int]:
    if x.dim() not in _MAX:
        raise op.refuse(f"expected 1 to 3 spatial axes, got an input of {x.dim()} axes")
    if op.outputs > 1:
        raise op.refuse("its second output, the indices, is not supported")
    return list(op.get("kernel_shape"))


def _fits(pads: list[int], kernel: list[int]) -> bool:
    """What torch's pooling takes: at most half a window."""
    return all(0 <= p <= k // 2 for p, k in zip(pads, kernel, strict=True))


def _max_pool(op: Op, x: Tensor) -> Tensor:
    kernel = _check(op, x)
    strides, dilations, begin, end = windows(op, x, kernel)
    if begin != end or not _fits(begin, kernel):
        x, begin = padded(x, begin, end, -math.inf), [0] * len(begin)
    result: Tensor = _MAX[x.dim()](x, kernel, strides, begin, dilations, ceil_mode=bool(op.get("ceil_mode", 0)))
    return result


def _average_pool(op: Op, x: Tensor) -> Tensor:
    kernel = _check(op, x)
    strides, dilations, begin, end = windows(op, x, kernel)
    if any(d != 1 for d in dilations):
        raise op.refuse("dilated average pooling is not supported")
    ceil, counts_pads = bool(op.get("ceil_mode", 0)), bool(op.get("count_include_pad", 0))
    run = _AVERAGE[x.dim()]
    if begin == end and _fits(begin, kernel):
        return run(x, kernel, strides, begin, ceil, counts_pads)
    zeros = [0] * len(begin)
    average = run(padded(x, begin, end), kernel, strides, zeros, ceil)
    if counts_pads:
        return average
    ones = padded(torch.ones_like(x[:1, :1]), begin, end)
    return average / run(ones, kernel, strides, zeros, ceil)


def _global_average_pool(op: Op, x: Tensor) -> Tensor:
    if x.dim() in _GLOBAL_AVERAGE:
        pooled: Tensor = _GLOBAL_AVERAGE[x.dim()](x, [1] * (x.dim() - 2))
        return pooled
    return x.mean(list(range(2, x.dim())), keepdim=True)


def _global_max_pool(op: Op, x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.dim())), keepdim=True)


RULES = {
    "AveragePool": Rule(run=_average_pool),
    "GlobalAveragePool": Rule(run=_global_average_pool),
    "GlobalMaxPool": Rule(run=_global_max_pool),
    "MaxPool": Rule(run=_max_pool),
}
