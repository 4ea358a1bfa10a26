"""Slices, gathers and scatters."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from razordeploy.capture.onnx_import.op import Known, Op, Rule, Value, integers, plain


def _ranges(op: Op, rank: int, given: tuple[Any, ...]) -> list[tuple[int, Any, Any, int]]:
    """``(axis, start, end, step)`` of every axis that is sliced, from inputs or, before opset 10, from attributes."""
    starts, ends, axes, steps = (
        [integers(g) if g is not None else None for g in (*given, None, None, None, None)][:4]
        if given
        else [op.get("starts"), op.get("ends"), op.get("axes"), None]
    )
    assert starts is not None
    assert ends is not None
    axes = list(range(len(starts))) if axes is None else [a % rank for a in axes]
    return list(zip(axes, starts, ends, steps or [1] * len(starts), strict=True))


def _slice(op: Op, x: Tensor, *given: Any) -> Tensor:
    for axis, start, end, step in _ranges(op, x.dim(), given):
        at = [slice(None)] * x.dim()
        if step > 0:
            # Beyond any size: torch.export would otherwise write the number itself into the graph's shape.
            last = None if isinstance(end, int) and end >= sys.maxsize >> 32 else end
            at[axis] = slice(start, last, step)
            x = x[tuple(at)]
        else:
            x = x.index_select(axis, torch.tensor(_backwards(int(x.shape[axis]), start, end, step)))
    return x


def _backwards(size: int, start: int, end: int, step: int) -> list[int]:
    """Positions of a slice with a negative step; ``end`` below ``-size`` means through the first."""
    return list(range(size))[slice(start, None if end < -size else end, step)]


def _slice_array(op: Op, x: np.ndarray, *given: Any) -> np.ndarray:
    for axis, start, end, step in _ranges(op, x.ndim, given):
        at: list[Any] = [slice(None)] * x.ndim
        at[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
        x = x[tuple(at)]
    return plain(x)


def _gather(op: Op, x: Tensor, indices: Value) -> Tensor:
    axis = op.get("axis", 0) % x.dim()
    if isinstance(indices, Known) and indices.array.ndim == 0:
        return x.select(axis, integers(indices.array)[0])
    at = indices.as_tensor() if isinstance(indices, Known) else indices
    if not isinstance(indices, Known) or (indices.array < 0).any():
        at = torch.where(at < 0, at + x.shape[axis], at)
    if axis == 0 and x.dim() == 2:
        return functional.embedding(at, x)
    if at.dim() == 1:
        return x.index_select(axis, at)
    shape = [*x.shape[:axis], *at.shape, *x.shape[axis + 1 :]]
    return x.index_select(axis, at.reshape(-1)).reshape(shape)


def _gather_array(op: Op, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return plain(np.asarray(np.take(x, indices.astype(np.int64), axis=op.get("axis", 0))))


def _gather_elements(op: Op, x: Tensor, indices: Tensor) -> Tensor:
    axis = op.get("axis", 0) % x.dim()
    return torch.gather(x, axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def _gather_nd(op: Op, x: Tensor, indices: Tensor) -> Tensor:
    if op.get("batch_dims", 0):
        raise op.refuse("batch_dims is not supported")
    return x[tuple(indices.unbind(-1))]


def _scatter_elements(op: Op, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, reduction = op.get("axis", 0) % x.dim(), op.get("reduction", "none")
    at = torch.where(indices < 0, indices + x.shape[axis], indices)
    if reduction == "none":
        return x.scatter(axis, at, updates)
    if reduction == "add":
        return x.scatter_add(axis, at, updates)
    raise op.refuse(f"reduction '{reduction}' is not supported")


def _scatter_nd(op: Op, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    reduction = op.get("reduction", "none")
    if reduction not in {"none", "add"}:
        raise op.refuse(f"reduction '{reduction}' is not supported")
    return x.index_put(tuple(indices.unbind(-1)), updates, accumulate=reduction == "add")


def _one_hot(op: Op, indices: Tensor, depth: np.ndarray, values: Tensor) -> Tensor:
    count, axis = integers(depth)[0], op.get("axis", -1)
    rank = indices.dim() + 1
    classes = torch.arange(count).reshape([-1 if i == axis % rank else 1 for i in range(rank)])
    wrapped = torch.where(indices < 0, indices + count, indices).to(torch.int64)
    return torch.where(wrapped.unsqueeze(axis) == classes, values[1], values[0])


RULES = {
    "Gather": Rule(run=_gather, raw=(1,), fold=_gather_array),
    "GatherElements": Rule(run=_gather_elements),
    "GatherND": Rule(run=_gather_nd),
    "OneHot": Rule(run=_one_hot, known=(1,)),
    "ScatterElements": Rule(run=_scatter_elements),
    "ScatterND": Rule(run=_scatter_nd),
    "Slice": Rule(run=_slice, known=(1, 2, 3, 4), fold=_slice_array),
}
