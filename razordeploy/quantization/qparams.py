"""Ranges to scales and zero points, and real values to integers and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import DataError, RecipeError
from razordeploy.quantization.plan import QParams

_FLOAT32 = torch.finfo(torch.float32)
_WHOLE = 1e-4
"""Steps that rounding may be short of a whole number."""


def middle_zero_point(scheme: QScheme) -> int:
    """Zero point of a symmetric grid whose data has both signs: 0 when signed, ``2**(bits - 1)`` when not."""
    return 0 if scheme.signed else 2 ** (scheme.bits - 1)


def reach(scheme: QScheme, zero_point: int) -> int:
    """Integer steps from ``zero_point`` to the end that a symmetric scale is measured against (the upper one)."""
    up = scheme.qmax - zero_point
    # One bit leaves no step above the zero point: the only other level is below it.
    return up if up > 0 else zero_point - scheme.qmin


def compute_qparams(min_val: Tensor, max_val: Tensor, scheme: QScheme) -> QParams:
    """Give the scale and zero point that spread a range over a grid (Jacob et al. 2018, section 2.1).

    ``min_val`` and ``max_val`` are 0-d or ``(C,)``; the range is widened to include 0, so that 0 is exact. Computed
    in float64. A range of zero width gives scale 1. Raises ``DataError`` for a NaN, an infinity or min > max.
    """
    low, high = (torch.as_tensor(v).detach().to("cpu", torch.float64) for v in (min_val, max_val))
    if low.shape != high.shape or low.ndim > 1:
        raise DataError(
            f"expected min and max of one shape, 0-d or (channels,), got {tuple(low.shape)} and {tuple(high.shape)}"
        )
    _refuse_bad_range(low, high)
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    if scheme.floor is not None:
        low = torch.full_like(low, scheme.floor)
        scale, zero_point = _from_floor(high, scheme)
    elif scheme.symmetric:
        scale, zero_point = _symmetric(low, high, scheme)
    else:
        scale = (high - low) / (scheme.levels - 1)
        # A range of zero width divides 0 by 0 here; it is replaced below.
        zero_point = (scheme.qmin - low / scale).round().nan_to_num(0.0)
    empty = low == high
    scale = scale.clamp(_FLOAT32.tiny, _FLOAT32.max).masked_fill(empty, 1.0)
    zero_point = zero_point.masked_fill(empty, 0.0).clamp(scheme.qmin, scheme.qmax)
    return QParams(scale=scale.to(torch.float32), zero_point=zero_point.to(torch.int64), scheme=scheme)


def _refuse_bad_range(low: Tensor, high: Tensor) -> None:
    finite = torch.isfinite(low) & torch.isfinite(high)
    if not bool(finite.all()):
        bad = int((~finite).sum())
        where = "" if low.ndim == 0 else f" in {bad} of {low.numel()} channels"
        raise DataError(
            f"expected a finite range, got min {low.min().item()} and max {high.max().item()}{where}",
            hint="look for NaN or infinity in the weights and in the calibration data",
        )
    if bool((low > high).any()):
        raise DataError(f"expected min <= max, got {low.tolist()} and {high.tolist()}")


def _symmetric(low: Tensor, high: Tensor, scheme: QScheme) -> tuple[Tensor, Tensor]:
    extent = torch.maximum(-low, high)
    middle = middle_zero_point(scheme)
    scale = extent / reach(scheme, middle)
    zero_point = torch.full_like(scale, middle)
    if scheme.signed:
        return scale, zero_point
    # Data without negative values (after a ReLU) would leave half of an unsigned grid unused.
    one_sided = low >= 0
    return torch.where(one_sided, high / scheme.qmax, scale), zero_point.masked_fill(one_sided, 0.0)


def _from_floor(high: Tensor, scheme: QScheme) -> tuple[Tensor, Tensor]:
    assert scheme.floor is not None
    steps = ((scheme.levels - 1) * -scheme.floor / (high - scheme.floor) + _WHOLE).floor().clamp(min=1)
    return -scheme.floor / steps, scheme.qmin + steps


def with_floor(q: QParams) -> QParams:
    """The grid next to ``q`` that begins at its scheme's floor; ``q`` itself where that has none."""
    if q.scheme.floor is None:
        return q
    steps = (-q.scheme.floor / q.scale.double()).round().clamp(1, q.scheme.levels - 1)
    scale, zero_point = -q.scheme.floor / steps, q.scheme.qmin + steps
    return QParams(scale=scale.to(q.scale.dtype), zero_point=zero_point.to(torch.int64), scheme=q.scheme)


def representable_range(scale: Tensor, zero_point: Tensor, scheme: QScheme) -> tuple[Tensor, Tensor]:
    """Give the range that ``compute_qparams`` turns back into this scale and zero point (same shapes, float32).

    Raises ``RecipeError`` for a zero point that the scheme cannot have.
    """
    scale, zero_point = scale.double(), zero_point.long()
    if bool(((zero_point < scheme.qmin) | (zero_point > scheme.qmax)).any()):
        raise RecipeError(
            f"expected a zero point in [{scheme.qmin}, {scheme.qmax}], the grid's range, got {zero_point.tolist()}"
        )
    if not scheme.symmetric:
        return ((scheme.qmin - zero_point) * scale).float(), ((scheme.qmax - zero_point) * scale).float()
    middle = middle_zero_point(scheme)
    allowed = {middle} if scheme.signed else {0, middle}
    if not set(zero_point.flatten().tolist()) <= allowed:
        raise RecipeError(
            f"expected a zero point among {sorted(allowed)} for a symmetric grid, got {zero_point.tolist()}",
            hint="use an affine scheme (is_symmetry=False)",
        )
    one_sided = (zero_point == 0) & (not scheme.signed)
    extent = scale * reach(scheme, middle)
    low = torch.where(one_sided, torch.zeros_like(scale), -extent)
    return low.float(), torch.where(one_sided, scale * scheme.qmax, extent).float()


def along_axis(value: Tensor, x: Tensor, ch_axis: int | None) -> Tensor:
    """View a ``(C,)`` value so that it broadcasts along ``ch_axis`` of ``x``, on the device of ``x``; 0-d stays 0-d."""
    value = value.to(x.device)
    if value.ndim == 0:
        return value
    if ch_axis is None or value.numel() != x.shape[ch_axis]:
        raise DataError(
            f"expected one scale per index of axis {ch_axis} of a tensor of shape {tuple(x.shape)}, "
            f"got {value.numel()} scales"
        )
    shape = [1] * x.ndim
    shape[ch_axis] = -1
    return value.view(shape)


def storage_dtype(scheme: QScheme) -> torch.dtype:
    """Smallest integer dtype that torch computes with and that holds the grid (unsigned above 8 bits: int32)."""
    if scheme.bits <= 8:
        return torch.int8 if scheme.signed else torch.uint8
    return torch.int16 if scheme.signed else torch.int32


def quantize(x: Tensor, q: QParams) -> Tensor:
    """Give the integers of ``x`` on the grid: ``clamp(round(x / scale) + zero_point)``, ties to even.

    The division is a true one, as in ONNX ``QuantizeLinear`` (torch multiplies by the reciprocal). Any shape;
    the dtype is ``storage_dtype(q.scheme)``.
    """
    scale, zero_point = (along_axis(v, x, q.scheme.ch_axis) for v in (q.scale, q.zero_point))
    integers = (x.float() / scale).round() + zero_point
    return integers.clamp(q.scheme.qmin, q.scheme.qmax).to(storage_dtype(q.scheme))


def dequantize(q_int: Tensor, q: QParams) -> Tensor:
    """Give the float32 values of integers: ``(q_int - zero_point) * scale``."""
    scale, zero_point = (along_axis(v, q_int, q.scheme.ch_axis) for v in (q.scale, q.zero_point))
    return (q_int.to(torch.int32) - zero_point) * scale


def fake_quantize(x: Tensor, qparams: QParams) -> Tensor:
    """Round ``x`` to the grid and back, in its own shape and dtype.

    The gradient is passed straight through for every value whose integer lies on the grid and is zero for the
    clipped ones (Bengio et al. 2013; the rule of ``torch.fake_quantize_per_tensor_affine``). The torch function
    itself is exact only for scales that are powers of two, because it multiplies by ``1 / scale``.
    """
    scheme = qparams.scheme
    scale, zero_point = (along_axis(v, x, scheme.ch_axis) for v in (qparams.scale, qparams.zero_point))
    result: Tensor = _StraightThrough.apply(x, scale, zero_point, scheme.qmin, scheme.qmax)
    return result


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
        integers = (x.float() / scale).round_().add_(zero_point)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((integers >= qmin) & (integers <= qmax))
        return integers.clamp_(qmin, qmax).sub_(zero_point).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None, None, None
