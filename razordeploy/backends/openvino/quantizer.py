"""Which operations this backend quantizes, and where the pairs go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import fx

from razordeploy.backends.openvino.spec import SPEC
from razordeploy.capture.graph import CapturedModel
from razordeploy.config.backend_spec import OpRule
from razordeploy.quantization.op_kinds import DEPTHWISE, kind_of
from razordeploy.quantization.placement import OpSettings, Settings, place
from razordeploy.quantization.plan import QuantPlan

_GROUPS, _DILATION = 6, 7
"""Positions among the arguments of a transposed convolution; the groups' is a plain one's too."""
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_KERNELS = (*_CONVOLUTIONS, *DEPTHWISE, "linear")
_GATES = {"sigmoid", "hardsigmoid"}
_NEVER_NEGATIVE = {"relu", *_GATES, "softmax"}
_KEEPS_SIGN = {
    "max_pool",
    "avg_pool",
    "global_avg_pool",
    "reshape",
    "transpose",
    "slice",
    "split",
    "pad",
    "upsample_nearest",
    "cat",
}


def plan(captured: CapturedModel, settings: Settings) -> QuantPlan:
    """Place by the YAML's rules, and by what its grouped and transposed convolutions, products and pools can do."""
    return place(captured, SPEC, _within_limits(settings))


def _within_limits(settings: Settings) -> Settings:
    def limited(node: fx.Node, kind: str, rule: OpRule) -> OpSettings:
        found = _signed_products(settings(node, kind, rule), node)
        if kind.startswith("attention_"):  # its fused kernel takes zero point 0 only
            return replace(found, activation=replace(found.activation, signed=True, symmetric=True))
        if kind == "avg_pool":
            return _pooled(found, node)
        if kind in _CONVOLUTIONS and len(node.args) > _GROUPS and node.args[_GROUPS] != 1:
            return _zero_point_0(found, node)
        if not kind.startswith("conv_transpose"):
            return found
        if len(node.args) > _GROUPS and node.args[_GROUPS] != 1:
            return replace(found, skip=found.skip or "OpenVINO runs grouped transposed convolutions in float")
        if len(node.args) > _DILATION and any(d != 1 for d in node.args[_DILATION]):  # type: ignore[union-attr]
            return replace(found, skip=found.skip or "OpenVINO's int8 transposed convolution is wrong where dilated")
        return _zero_point_0(found, node)

    return limited


def _pooled(found: OpSettings, node: fx.Node) -> OpSettings:
    padding, ceil_mode, counted = (_argument(node, i, d) for i, d in ((3, 0), (4, False), (5, True)))
    if ceil_mode:
        return replace(found, skip=found.skip or "OpenVINO pools in float where a window reaches over the edge")
    padded = counted and any(padding if isinstance(padding, (list, tuple)) else (padding,))
    if padded or (isinstance(node.args[0], fx.Node) and kind_of(node.args[0]) == "pad"):
        return _zero_point_0(found, node)  # its kernel pads with the integer 0, whatever number that stands for
    return found


def _argument(node: fx.Node, position: int, default: object) -> object:
    return node.args[position] if len(node.args) > position else default


def _signed_products(found: OpSettings, node: fx.Node) -> OpSettings:
    """Give zero point 0 to what a convolution or linear layer writes and a product reads.

    Another zero point would be taken off before the product, which is then one of floats. Where the second operand is a
    gate, or the product alone reads one such value, the other operand gives the value its type; so it does where the
    value is an activation's.
    """
    grids = {}
    for value in filter(_is_signed, node.all_input_nodes):
        products = [user for user in value.users if kind_of(user) == "mul"]
        shared = kind_of(value) in _KERNELS and len(value.users) > 1
        if products and (shared or any(_needs_zero_point_0(value, p) for p in products)):
            grids[value.name] = replace(found.activation, signed=True, symmetric=True)
    return replace(found, by_input=grids) if grids else found


def _needs_zero_point_0(value: fx.Node, product: fx.Node) -> bool:
    left, right = product.args[:2]
    gated = left is value and isinstance(right, fx.Node) and kind_of(right) in _GATES
    return not gated and _is_written(left) and _is_written(right)


def _is_written(value: object) -> bool:
    """Tell whether a kernel writes ``value``, with or without an activation."""
    while isinstance(value, fx.Node) and kind_of(value) in SPEC.fused_activations:
        value = value.args[0]
    return isinstance(value, fx.Node) and kind_of(value) in _KERNELS


def _is_signed(value: fx.Node) -> bool:
    return _is_written(value) and not _never_negative(value)


def _zero_point_0(found: OpSettings, node: fx.Node) -> OpSettings:
    """For a kernel that takes no other zero point, and with another one silently runs in float."""
    if all(_never_negative(source) for source in _sources(node.args[0])):
        return found
    if _is_part(node.args[0]):
        why = "it needs zero point 0, and OpenVINO computes all parts of a value on the grid of one of them"
        return replace(found, skip=found.skip or why)
    return replace(found, activation=replace(found.activation, signed=True, symmetric=True))


def _is_part(value: object) -> bool:
    """Tell whether ``value`` is a slice of another, moved or not."""
    while isinstance(value, fx.Node) and kind_of(value) in _KEEPS_SIGN - {"cat"}:
        if kind_of(value) in ("slice", "split"):
            return True
        value = value.args[0]
    return False


def _sources(value: object) -> Iterator[fx.Node]:
    """Values that ``value`` is made of, through operations that keep their sign."""
    if not isinstance(value, fx.Node):
        return
    if kind_of(value) in _KEEPS_SIGN:
        parts = value.args[0] if isinstance(value.args[0], (list, tuple)) else [value.args[0]]
        for part in parts:
            yield from _sources(part)
    else:
        yield value


def _never_negative(value: fx.Node) -> bool:
    """Then the zero point of its affine grid is 0, and all 256 levels are of use."""
    kind = kind_of(value)
    if kind == "relu6":
        low = value.args[1] if len(value.args) > 1 else None
        return isinstance(low, (int, float)) and low >= 0
    return kind in _NEVER_NEGATIVE
