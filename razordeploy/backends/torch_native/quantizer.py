"""Plan what Inductor's x86 fusions can run in int8."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from torch import fx

from razordeploy.capture.graph import CapturedModel, shape_of
from razordeploy.config.backend_spec import BackendSpec, OpRule, load_backend_spec
from razordeploy.config.paths import backend_configs_dir
from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.placement import OpSettings, Settings, place
from razordeploy.quantization.plan import QuantPlan

_ONE_CHANNEL = "oneDNN's packed int8 convolution gives wrong results on a single input channel"


@cache
def spec() -> BackendSpec:
    """The backend's YAML."""
    return load_backend_spec(backend_configs_dir() / "torch_native.yaml")


def plan(captured: CapturedModel, settings: Settings) -> QuantPlan:
    """Plan the captured graph.

    Raises:
        RecipeError: a grid is asked for that oneDNN's int8 kernels do not have.
    """

    def checked(node: fx.Node, kind: str, rule: OpRule) -> OpSettings:
        wanted = settings(node, kind, rule)
        if wanted.skip is not None or kind == "add":
            return wanted
        if _one_channel(node, kind):
            return replace(wanted, skip=_ONE_CHANNEL)
        _check(node, wanted)
        return wanted

    return place(captured, spec(), checked)


def _one_channel(node: fx.Node, kind: str) -> bool:
    source = node.args[0]
    shape = shape_of(source) if kind.startswith("conv") and isinstance(source, fx.Node) else None
    return shape is not None and len(shape) > 1 and shape[1] == 1


def _check(node: fx.Node, wanted: OpSettings) -> None:
    activation, weight = wanted.activation, wanted.weight
    if activation.bits != 8 or activation.signed or activation.ch_axis is not None:
        raise RecipeError(
            f"torch_native quantizes activations to unsigned 8 bits, one scale a tensor; "
            f"'{node.name}' asks for {_say(activation)}",
            hint="the academic backend simulates any grid",
        )
    if not weight.signed or not weight.symmetric or weight.bits > 8 or weight.ch_axis not in (None, 0):
        raise RecipeError(
            f"torch_native quantizes weights to signed symmetric grids of up to 8 bits, per tensor or per channel of "
            f"axis 0; '{node.name}' asks for {_say(weight)}",
            hint="the academic backend simulates any grid",
        )


def _say(scheme: QScheme) -> str:
    sign = "signed" if scheme.signed else "unsigned"
    form = "symmetric" if scheme.symmetric else "affine"
    axis = "per tensor" if scheme.ch_axis is None else f"per channel of axis {scheme.ch_axis}"
    return f"{scheme.bits} bits, {sign}, {form}, {axis}"
