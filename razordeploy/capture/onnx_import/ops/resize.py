"""Resize and Upsample: torch's interpolation where it is the same, weighted neighbours along each axis elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from razordeploy.capture.onnx_import.op import Op, Rule, integers

_TORCH_MODES = {
    ("linear", 1): "linear",
    ("linear", 2): "bilinear",
    ("linear", 3): "trilinear",
    ("cubic", 2): "bicubic",
}


@dataclass(frozen=True, kw_only=True)
class _Axis:
    size: int
    out: int
    scale: float
    """Output over input as the coordinates are computed with; not always ``out / size``."""


def _resize(op: Op, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    if op.version < 11:
        scales = roi  # (x, scales)
    if op.get("antialias", 0):
        raise op.refuse("antialias=1 is not supported")
    axes = [a % x.dim() for a in op.get("axes") or range(x.dim())]
    spatial = x.dim() - 2
    if sizes is not None and len(sizes):
        wanted = _kept_ratio(op, x, axes, integers(sizes))
    elif scales is not None and len(scales):
        numbers = [float(s) for s in np.asarray(scales).reshape(-1)]
        wanted = {a: _Axis(size=int(x.shape[a]), out=math.floor(int(x.shape[a]) * s), scale=s)
                  for a, s in zip(axes, numbers, strict=True) if s != 1}  # fmt: skip
    else:
        raise op.refuse("it has neither scales nor sizes")
    changed = {a: w for a, w in wanted.items() if w.out != w.size or w.scale != 1}
    if any(a < x.dim() - spatial for a in changed):
        raise op.refuse("it resizes the batch or the channels")
    return _as_torch(op, x, changed, sizes is None or not len(sizes)) if changed else x


def _kept_ratio(op: Op, x: Tensor, axes: list[int], sizes: list[Any]) -> dict[int, _Axis]:
    policy = op.get("keep_aspect_ratio_policy", "stretch")
    found = {}
    fixed = [(a, n) for a, n in zip(axes, sizes, strict=True) if isinstance(x.shape[a], int)]
    if policy != "stretch":
        ratio = (min if policy == "not_larger" else max)(n / int(x.shape[a]) for a, n in fixed)
    for axis, n in fixed:
        size = int(x.shape[axis])
        scale = n / size if policy == "stretch" else ratio
        found[axis] = _Axis(size=size, out=int(n) if policy == "stretch" else int(size * ratio + 0.5), scale=scale)
    return found


def _as_torch(op: Op, x: Tensor, axes: dict[int, _Axis], by_scale: bool) -> Tensor:
    mode, rank = op.get("mode", "nearest"), x.dim() - 2
    if mode == "nearest":
        rule = op.get("nearest_mode", "round_prefer_floor") if op.version >= 11 else "floor"
        picks = {a: [_nearest(_coordinate(op, o, w), rule, w.size) for o in range(w.out)] for a, w in axes.items()}
        same = all(p == [math.floor(o * w.size / w.out) for o in range(w.out)]
                   for p, w in zip(picks.values(), axes.values(), strict=True))  # fmt: skip
        if same and rank in (1, 2, 3):
            return functional.interpolate(x, **_target(x, axes, by_scale))
        for axis, pick in picks.items():
            x = x.index_select(axis, torch.tensor(pick))
        return x
    coordinates = op.get("coordinate_transformation_mode", "half_pixel") if op.version >= 11 else "asymmetric"
    if coordinates == "pytorch_half_pixel" and all(w.out > 1 for w in axes.values()):
        coordinates = "half_pixel"
    as_sized = by_scale or all(math.isclose(w.scale, w.out / w.size, rel_tol=1e-6) for w in axes.values())
    known = as_sized and (mode, rank) in _TORCH_MODES and coordinates in {"half_pixel", "align_corners"}
    cubic = op.get("cubic_coeff_a", -0.75) == -0.75 and not op.get("exclude_outside", 0)
    if known and (mode == "linear" or cubic):
        options = _target(x, axes, by_scale and coordinates == "half_pixel")
        corners = coordinates == "align_corners"
        return functional.interpolate(x, mode=_TORCH_MODES[mode, rank], align_corners=corners, **options)
    for axis, wanted in axes.items():
        x = _weighted(op, x, axis, wanted, mode)
    return x


def _target(x: Tensor, axes: dict[int, _Axis], by_scale: bool) -> dict[str, Any]:
    spatial = range(2, x.dim())
    if by_scale:
        return {"scale_factor": [axes[a].scale if a in axes else 1.0 for a in spatial]}
    return {"size": [axes[a].out if a in axes else x.shape[a] for a in spatial]}


def _coordinate(op: Op, position: int, axis: _Axis) -> float:
    """Where output ``position`` lies on the input's axis."""
    mode = op.get("coordinate_transformation_mode", "half_pixel") if op.version >= 11 else "asymmetric"
    half_pixel = (position + 0.5) / axis.scale - 0.5
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and axis.out > 1):
        return half_pixel
    if mode == "pytorch_half_pixel":
        return 0.0
    if mode == "align_corners":
        return 0.0 if axis.out == 1 else position * (axis.size - 1) / (axis.out - 1)
    if mode == "asymmetric":
        return position / axis.scale
    if mode == "half_pixel_symmetric":
        return axis.size / 2 * (1 - axis.out / (axis.scale * axis.size)) + half_pixel
    raise op.refuse(f"coordinate_transformation_mode '{mode}' is not supported")


def _nearest(coordinate: float, rule: str, size: int) -> int:
    # float32, as the engines compute it: half-way positions are decided by rounding errors otherwise.
    at = np.float32(coordinate)
    found = {
        "floor": math.floor(at),
        "ceil": math.ceil(at),
        "round_prefer_floor": math.ceil(at - np.float32(0.5)),
        "round_prefer_ceil": math.floor(at + np.float32(0.5)),
    }[rule]
    return min(max(found, 0), size - 1)


def _weighted(op: Op, x: Tensor, axis: int, wanted: _Axis, mode: str) -> Tensor:
    """Sum of the two (linear) or four (cubic) neighbours of each output position, times their weights."""
    reach = 1 if mode == "linear" else 2
    places, weights = [], []
    for position in range(wanted.out):
        at = _coordinate(op, position, wanted)
        if mode == "linear":
            at = min(max(at, 0.0), wanted.size - 1)
        first = math.floor(at) - reach + 1
        taps = range(first, first + 2 * reach)
        row = [_kernel(abs(at - t), mode, op.get("cubic_coeff_a", -0.75)) for t in taps]
        if op.get("exclude_outside", 0):
            row = [w if 0 <= t < wanted.size else 0.0 for t, w in zip(taps, row, strict=True)]
            row = [w / sum(row) for w in row]
        places.append([min(max(t, 0), wanted.size - 1) for t in taps])
        weights.append(row)
    shape = [-1 if a == axis else 1 for a in range(x.dim())]
    parts = []
    for tap in range(2 * reach):
        weight = torch.tensor([row[tap] for row in weights]).reshape(shape)
        parts.append(x.index_select(axis, torch.tensor([row[tap] for row in places])) * weight)
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def _kernel(distance: float, mode: str, a: float) -> float:
    """Weight of a neighbour at this distance: the triangle, or Keys' cubic convolution kernel (1981, eq. 15)."""
    if mode == "linear":
        return max(1 - distance, 0.0)
    if distance <= 1:
        return ((a + 2) * distance - (a + 3)) * distance**2 + 1
    return a * (((distance - 5) * distance + 8) * distance - 4) if distance < 2 else 0.0


def _upsample(op: Op, x: Tensor, scales: Any = None) -> Tensor:
    given = op.get("scales") if scales is None else scales
    old = Op(name=op.name, type=op.type, version=10, attributes={"mode": op.get("mode", "nearest")})
    return _resize(old, x, given)


RULES = {
    "Resize": Rule(run=_resize, known=(1, 2, 3)),
    "Upsample": Rule(run=_upsample, known=(1,)),
}
