"""Shapes and what only rearranges or repeats: reshape, transpose, concat, split, pad ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from razordeploy.capture.onnx_import.op import Known, Op, Rule, integers, plain, sizes

_SMALL = 1024
"""Elements of an array that may still be a shape, or pads for one."""


def _shape(op: Op, x: Tensor) -> Known:
    return Known(sizes(x)[op.get("start", 0) : op.get("end", None)])


def _shape_array(op: Op, x: np.ndarray) -> np.ndarray:
    return np.array(x.shape, np.int64)[op.get("start", 0) : op.get("end", None)]


def _size(op: Op, x: Tensor) -> Known:
    return Known(plain(np.asarray(np.multiply.reduce(sizes(x), initial=1))))


def _wanted(op: Op, have: Sequence[Any], shape: np.ndarray) -> list[Any]:
    """The new shape with its zeros, which copy a size, filled in."""
    copies = not op.get("allowzero", 0)
    return [have[i] if copies and isinstance(n, int) and n == 0 else n for i, n in enumerate(integers(shape))]


def _reshape(op: Op, x: Tensor, shape: np.ndarray) -> Tensor:
    return x.reshape(_wanted(op, x.shape, shape))


def _reshape_array(op: Op, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x.reshape(_wanted(op, x.shape, shape))


def _flatten(op: Op, x: Tensor) -> Tensor:
    axis = op.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 1:
        return x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
    return x.reshape(1, -1) if axis == 0 else x.flatten(0, axis - 1).flatten(1) if axis < x.dim() else x.reshape(-1, 1)


def _transpose(op: Op, x: Tensor) -> Tensor:
    return x.permute(op.get("perm") or list(range(x.dim()))[::-1])


def _axes(op: Op, given: np.ndarray | None) -> list[int] | None:
    return op.get("axes") if given is None else integers(given)


def _squeeze(op: Op, x: Tensor, given: np.ndarray | None = None) -> Tensor:
    axes = _axes(op, given)
    if axes is None:
        axes = [i for i, n in enumerate(x.shape) if isinstance(n, int) and n == 1]
    return x.squeeze([a % x.dim() for a in axes]) if axes else x


def _squeeze_array(op: Op, x: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    axes = _axes(op, given)
    return np.squeeze(x, None if axes is None else tuple(axes))


def _unsqueeze(op: Op, x: Tensor, given: np.ndarray | None = None) -> Tensor:
    axes = _axes(op, given) or []
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def _unsqueeze_array(op: Op, x: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    return np.expand_dims(x, tuple(_axes(op, given) or ()))


def _concat(op: Op, *values: Tensor) -> Tensor:
    return torch.cat(values, op.get("axis"))


def _concat_arrays(op: Op, *arrays: np.ndarray) -> np.ndarray:
    return np.concatenate(arrays, op.get("axis"))


def _split(op: Op, x: Tensor, given: np.ndarray | None = None) -> tuple[Tensor, ...]:
    axis = op.get("axis", 0)
    parts = op.get("split") if given is None else integers(given)
    if parts is None:
        step = -(-int(x.shape[axis]) // op.outputs)
        parts = [min(step, int(x.shape[axis]) - i * step) for i in range(op.outputs)]
    return tuple(torch.split(x, list(parts), axis))


def _expand(op: Op, x: Tensor, shape: np.ndarray) -> Tensor:
    wanted = integers(shape)
    have = [1] * (len(wanted) - x.dim()) + list(x.shape)
    wanted = [1] * (len(have) - len(wanted)) + wanted
    # A size of 1 leaves the input's own: the two broadcast against each other.
    return x.expand([h if isinstance(w, int) and w == 1 else w for h, w in zip(have, wanted, strict=True)])


def _expand_array(op: Op, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x * np.ones(integers(shape), x.dtype) if x.dtype != bool else x & np.ones(integers(shape), bool)


def _tile(op: Op, x: Tensor, repeats: np.ndarray) -> Tensor:
    return x.repeat(integers(repeats))


_MODES = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}


def _pad(op: Op, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    given = integers(op.get("pads") if pads is None else pads)
    at = list(range(x.dim())) if axes is None else [a % x.dim() for a in integers(axes)]
    begin, end = [0] * x.dim(), [0] * x.dim()
    for i, axis in enumerate(at):
        begin[axis], end[axis] = given[i], given[i + len(at)]
    first = next((i for i in range(x.dim()) if begin[i] or end[i]), None)
    if first is None:
        return x
    mode = op.get("mode", "constant")
    if mode != "constant":
        first = 2 if x.dim() > 2 and first >= 2 else first
        if first < 2 or x.dim() - first > 3:
            raise op.refuse(f"mode '{mode}' is only supported on the spatial axes of an image")
    pairs = [p for axis in range(x.dim() - 1, first - 1, -1) for p in (begin[axis], end[axis])]
    if mode != "constant":
        return functional.pad(x, pairs, _MODES[mode])
    number = op.get("value", 0.0) if value is None else np.asarray(value).reshape(-1)[0].item()
    return functional.pad(x, pairs, value=number)


def _depth_to_space(op: Op, x: Tensor) -> Tensor:
    block = op.get("blocksize")
    if op.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(op: Op, x: Tensor) -> Tensor:
    block = op.get("blocksize")
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)


def _constant_of_shape(op: Op, shape: np.ndarray) -> Tensor:
    value = torch.from_numpy(np.asarray(op.get("value", np.zeros(1, np.float32))).reshape(-1))
    return torch.full(integers(shape), value[0].item(), dtype=value.dtype)


def _constant_of_shape_array(op: Op, shape: np.ndarray) -> np.ndarray | None:
    if np.prod(shape) > _SMALL:
        return None  # a tensor as large as activations is better made by the graph
    value = np.asarray(op.get("value", np.zeros(1, np.float32)))
    return np.full(integers(shape), value.reshape(-1)[0], value.dtype)


def _range_array(op: Op, start: np.ndarray, limit: np.ndarray, step: np.ndarray) -> np.ndarray:
    return np.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def _range(op: Op, start: np.ndarray, limit: np.ndarray, step: np.ndarray) -> Tensor:
    (first,), (last,), (by,) = (x.reshape(-1).tolist() for x in (start, limit, step))
    dtype = torch.float32 if start.dtype.kind == "f" else torch.int64
    return torch.arange(first, last, by, dtype=dtype)


def _trilu(op: Op, x: Tensor, k: np.ndarray | None = None) -> Tensor:
    diagonal = 0 if k is None else integers(k)[0]
    return x.triu(diagonal) if op.get("upper", 1) else x.tril(diagonal)


RULES = {
    "Concat": Rule(run=_concat, fold=_concat_arrays),
    "ConstantOfShape": Rule(run=_constant_of_shape, known=(0,), fold=_constant_of_shape_array),
    "DepthToSpace": Rule(run=_depth_to_space),
    "Expand": Rule(run=_expand, known=(1,), fold=_expand_array),
    "Flatten": Rule(run=_flatten),
    "Pad": Rule(run=_pad, known=(1, 2, 3)),
    "Range": Rule(run=_range, known=(0, 1, 2), fold=_range_array),
    "Reshape": Rule(run=_reshape, known=(1,), fold=_reshape_array),
    "Shape": Rule(run=_shape, fold=_shape_array),
    "Size": Rule(run=_size, fold=lambda op, x: np.array(x.size, np.int64)),
    "SpaceToDepth": Rule(run=_space_to_depth),
    "Split": Rule(run=_split, known=(1,)),
    "Squeeze": Rule(run=_squeeze, known=(1,), fold=_squeeze_array),
    "Tile": Rule(run=_tile, known=(1,), fold=lambda op, x, repeats: np.tile(x, integers(repeats))),
    "Transpose": Rule(run=_transpose, fold=lambda op, x: np.transpose(x, op.get("perm"))),
    "Trilu": Rule(run=_trilu, known=(1,)),
    "Unsqueeze": Rule(run=_unsqueeze, known=(1,), fold=_unsqueeze_array),
}
