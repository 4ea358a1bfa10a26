"""Pads of sliding windows: explicit, or by ``auto_pad`` and the input's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from razordeploy.capture.onnx_import.op import Op


def windows(op: Op, x: torch.Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, and pads at the begin and at the end of each spatial axis of ``x`` (N, C, ...)."""
    rank = len(kernel)
    strides = list(op.get("strides") or [1] * rank)
    dilations = list(op.get("dilations") or [1] * rank)
    auto = op.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads = list(op.get("pads") or [0] * (2 * rank))
        return strides, dilations, pads[:rank], pads[rank:]
    if auto == "VALID":
        return strides, dilations, [0] * rank, [0] * rank
    begin, end = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-int(size) // s) - 1) * s + (k - 1) * d + 1 - int(size), 0)
        small, large = total // 2, total - total // 2
        begin.append(small if auto == "SAME_UPPER" else large)
        end.append(large if auto == "SAME_UPPER" else small)
    return strides, dilations, begin, end


def padded(x: torch.Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> torch.Tensor:
    """Pad the last axes; negative pads crop."""
    if not any(begin) and not any(end):
        return x
    pairs = [p for b, e in zip(reversed(begin), reversed(end), strict=True) for p in (b, e)]
    return functional.pad(x, pairs, value=value)
