"""Which operations TensorRT runs in int8 with profit, and where the pairs go."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from razordeploy.backends.tensorrt.spec import SPEC
from razordeploy.capture.graph import CapturedModel, shape_of
from razordeploy.config.backend_spec import OpRule
from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.placement import OpSettings, Settings, place
from razordeploy.quantization.plan import QuantPlan

_STEP = 8
"""Channels in one vector of the integer units."""


def plan(captured: CapturedModel, settings: Settings) -> QuantPlan:
    """Place by the YAML's rules, without what TensorRT has no int8 kernel for or gains nothing from.

    Raises:
        RecipeError: the recipe asks for a grid that TensorRT does not have.
    """
    return placed(captured, settings, min_channels=SPEC.min_channels)


def placed(captured: CapturedModel, settings: Settings, *, min_channels: int) -> QuantPlan:
    """The same with another limit on what is too small; 0: nothing is."""

    def limited(node: fx.Node, kind: str, rule: OpRule) -> OpSettings:
        wanted = settings(node, kind, rule)
        if wanted.skip is not None or not rule.enabled:
            return wanted
        _check(node, wanted)
        return replace(wanted, skip=_unsupported(node, kind) or _too_small(node, kind, min_channels))

    return place(captured, SPEC, limited)


def _check(node: fx.Node, wanted: OpSettings) -> None:
    for role, scheme in (("activation", wanted.activation), ("weight", wanted.weight)):
        if scheme.bits != 8 or not scheme.signed or not scheme.symmetric:
            raise RecipeError(
                f"TensorRT has one integer grid: signed, symmetric, 8 bits; the {role} of '{node.name}' asks for "
                f"{scheme.bits} bits, {_say(scheme)}",
                hint="leave dtype and symmetry to the backend",
            )


def _say(scheme: QScheme) -> str:
    return f"{'signed' if scheme.signed else 'unsigned'}, {'symmetric' if scheme.symmetric else 'affine'}"


def _unsupported(node: fx.Node, kind: str) -> str | None:
    if kind.startswith("conv_transpose") and _groups(node) != 1:
        return "TensorRT scales grouped transposed convolutions per group, not per channel"
    return None


def _too_small(node: fx.Node, kind: str, least: int) -> str | None:
    """Why the layer is too small for the integer units.

    A convolution needs ``least`` channels on both sides; with a multiple of 8 on one side, the network's first layer
    and one with ``least`` on the other side pass too, and so does a grouped one with a kernel of 3 and more. A product
    needs ``least`` columns and ``least`` terms, and more than one row.
    """
    weight = shape_of(node.args[1]) if len(node.args) > 1 and isinstance(node.args[1], fx.Node) else None
    if not least or weight is None:
        return None
    if kind == "linear":
        return _small_product(node, weight, least)
    if "conv" not in kind:
        return None
    into, out, kernel = weight[1], weight[0], weight[2:]
    if min(into, out) >= least:
        return None
    if _groups(node) > 1:
        passes = out % _STEP == 0 and min(kernel) >= 3
    else:
        first = isinstance(node.args[0], fx.Node) and node.args[0].op == "placeholder"
        passes = (
            (out % _STEP == 0 or into % _STEP == 0) and (first or max(into, out) >= least) and len(set(kernel)) == 1
        )
    return None if passes else f"too small for the integer units: {into} channels in, {out} out, fewer than {least}"


def _small_product(node: fx.Node, weight: tuple[int, ...], least: int) -> str | None:
    columns, terms = weight
    rows = shape_of(node)
    if columns == 1 or (rows is not None and len(rows) < 3 and rows[0] == 1):
        return "a product with one row or one column: a vector has no use for the integer units"
    if min(columns, terms) < least:
        return f"too small for the integer units: {terms} terms, {columns} columns, fewer than {least}"
    return None


def _groups(node: fx.Node) -> int:
    groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    return int(groups)  # type: ignore[arg-type]
