"""Reductions over axes, the largest elements, running sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from razordeploy.capture.onnx_import.op import Op, Rule, integers, plain

_Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _axes(op: Op, rank: int, given: np.ndarray | None) -> list[int]:
    """Axes from the attribute or, in later opsets, from the second input; none given means all."""
    axes = op.get("axes") if given is None else integers(given)
    if axes:
        return [int(a) % rank for a in axes]
    return [] if op.get("noop_with_empty_axes", 0) else list(range(rank))


def _reduction(function: _Reduce, fold: Callable[..., Any] | None = None) -> Rule:
    def run(op: Op, x: Tensor, given: np.ndarray | None = None) -> Tensor:
        axes = _axes(op, x.dim(), given)
        return function(x, axes, bool(op.get("keepdims", 1))) if axes else x

    def on_arrays(op: Op, x: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
        assert fold is not None
        axes = tuple(_axes(op, x.ndim, given))
        return plain(np.asarray(fold(x, axis=axes, keepdims=bool(op.get("keepdims", 1))))) if axes else x

    return Rule(run=run, known=(1,), fold=None if fold is None else on_arrays)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _arg(op: Op, x: Tensor, largest: bool) -> Tensor:
    axis, keep = op.get("axis", 0), bool(op.get("keepdims", 1))
    find = torch.argmax if largest else torch.argmin
    if not op.get("select_last_index", 0):
        return find(x, axis, keepdim=keep)
    return int(x.shape[axis]) - 1 - find(x.flip(axis), axis, keepdim=keep)


def _top_k(op: Op, x: Tensor, k: np.ndarray) -> tuple[Tensor, Tensor]:
    values, indices = torch.topk(x, integers(k)[0], op.get("axis", -1), bool(op.get("largest", 1)))
    return values, indices


def _cumulative_sum(op: Op, x: Tensor, axis: np.ndarray) -> Tensor:
    at = integers(axis)[0] % x.dim()
    x = x.flip(at) if op.get("reverse", 0) else x
    result = torch.cumsum(x, at)
    if op.get("exclusive", 0):
        result = result - x
    return result.flip(at) if op.get("reverse", 0) else result


RULES = {
    "ArgMax": Rule(run=lambda op, x: _arg(op, x, True)),
    "ArgMin": Rule(run=lambda op, x: _arg(op, x, False)),
    "CumSum": Rule(run=_cumulative_sum, known=(1,)),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep), np.max),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep), np.min),
    "ReduceProd": _reduction(_product, np.prod),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep), np.sum),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "TopK": Rule(run=_top_k, known=(1,)),
}
