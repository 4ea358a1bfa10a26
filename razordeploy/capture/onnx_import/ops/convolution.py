"""Conv and ConvTranspose, in one to three dimensions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from razordeploy.capture.onnx_import.op import Op, Rule
from razordeploy.capture.onnx_import.windows import padded, windows

_CONV = {3: torch.conv1d, 4: torch.conv2d, 5: torch.conv3d}
_TRANSPOSED = {3: torch.conv_transpose1d, 4: torch.conv_transpose2d, 5: torch.conv_transpose3d}


def _conv(op: Op, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.dim() not in _CONV:
        raise op.refuse(f"expected 1 to 3 spatial axes, got an input of {x.dim()} axes")
    strides, dilations, begin, end = windows(op, x, weight.shape[2:])
    if begin != end or min(begin, default=0) < 0:
        x, begin = padded(x, begin, end), [0] * len(begin)
    return _CONV[x.dim()](x, weight, bias, strides, begin, dilations, op.get("group", 1))


def _conv_transpose(op: Op, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The transposed convolution pads what it cuts off: ``out = s (in - 1) + p_out + d (k - 1) + 1 - pads``."""
    if x.dim() not in _TRANSPOSED:
        raise op.refuse(f"expected 1 to 3 spatial axes, got an input of {x.dim()} axes")
    rank = x.dim() - 2
    strides = list(op.get("strides") or [1] * rank)
    dilations = list(op.get("dilations") or [1] * rank)
    extra = list(op.get("output_padding") or [0] * rank)
    spans = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
    whole = [s * (int(n) - 1) + e + t + 1 for s, n, e, t in zip(strides, x.shape[2:], extra, spans, strict=True)]
    begin, end = _cut(op, x, whole, strides)
    run = _TRANSPOSED[x.dim()]
    if begin == end and all(0 <= b <= t for b, t in zip(begin, spans, strict=True)):
        return run(x, weight, bias, strides, begin, extra, op.get("group", 1), dilations)
    full = run(x, weight, bias, strides, [0] * rank, extra, op.get("group", 1), dilations)
    return functional.pad(full, [-p for b, e in zip(reversed(begin), reversed(end), strict=True) for p in (b, e)])


def _cut(op: Op, x: Tensor, whole: list[int], strides: list[int]) -> tuple[list[int], list[int]]:
    rank = len(whole)
    auto = op.get("auto_pad", "NOTSET")
    wanted = op.get("output_shape")
    if wanted is None and auto in {"NOTSET", "VALID"}:
        pads = list(op.get("pads") or [0] * (2 * rank)) if auto == "NOTSET" else [0] * (2 * rank)
        return pads[:rank], pads[rank:]
    out = (
        list(wanted)[-rank:] if wanted is not None else [int(n) * s for n, s in zip(x.shape[2:], strides, strict=True)]
    )
    totals = [max(w - o, 0) for w, o in zip(whole, out, strict=True)]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (small, large) if auto == "SAME_UPPER" else (large, small)


RULES = {"Conv": Rule(run=_conv), "ConvTranspose": Rule(run=_conv_transpose)}
