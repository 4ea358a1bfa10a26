"""Every operator that is imported."""

from __future__ import annotations

from razordeploy.capture.onnx_import.op import Rule
from razordeploy.capture.onnx_import.ops import (
    activation,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    reduction,
    resize,
    shape,
)

RULES: dict[str, Rule] = {
    **activation.RULES,
    **convolution.RULES,
    **elementwise.RULES,
    **indexing.RULES,
    **linear.RULES,
    **normalization.RULES,
    **pooling.RULES,
    **reduction.RULES,
    **resize.RULES,
    **shape.RULES,
}
