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
from razordeploy.quantization.op_kinds import kind_of
from razordeploy.quantization.placement import OpSettings, Settings, place
from razordeploy.quantization.plan import QuantPlan, QuantPoint

_NO_HOST = "no convolution or linear layer right before it whose kernel could add"

_ONE_CHANNEL = "oneDNN's packed int8 convolution gives wrong results on a single input channel"


@cache
def spec() -> BackendSpec:
    """The backend's YAML."""
    return load_backend_spec(backend_configs_dir() / "torch_native.yaml")


def plan(captured: CapturedModel, settings: Settings) -> QuantPlan:
    """Plan the captured graph.

    An addition becomes a post-op of the int8 kernel that computes one of its operands: that operand stays in the
    kernel's accumulator and is not rounded. Additions without such a kernel stay float.

    Raises:
        RecipeError: a grid is asked for that oneDNN's int8 kernels do not have.
    """
    hosts: dict[str, fx.Node] = {}

    def checked(node: fx.Node, kind: str, rule: OpRule) -> OpSettings:
        wanted = settings(node, kind, rule)
        if wanted.skip is not None:
            return wanted
        if kind == "add":
            host = _host(node, settings)
            if host is None:
                return replace(wanted, skip=_NO_HOST)
            hosts[node.name] = host
            return wanted
        if _one_channel(node, kind):
            return replace(wanted, skip=_ONE_CHANNEL)
        _check(node, wanted)
        return wanted

    placed = place(captured, spec(), checked)
    return replace(placed, points=tuple(_without_hosts(placed, hosts)))


def _one_channel(node: fx.Node, kind: str) -> bool:
    source = node.args[0]
    shape = shape_of(source) if kind.startswith("conv") and isinstance(source, fx.Node) else None
    return shape is not None and len(shape) > 1 and shape[1] == 1


def _host(add: fx.Node, settings: Settings) -> fx.Node | None:
    """The operation inside whose kernel ``add`` runs: of two candidates the later, which can see the other's result."""
    if add.kwargs.get("alpha", 1) != 1 or len(add.args) != 2:
        return None
    left, right = add.args
    if not (isinstance(left, fx.Node) and isinstance(right, fx.Node)) or shape_of(left) != shape_of(right):
        return None
    if left is right:
        return None
    able = [n for n in (left, right) if _can_host(n, settings) and n.args[0] not in (left, right)]
    order = {n: i for i, n in enumerate(add.graph.nodes)}
    return max(able, key=order.__getitem__, default=None)


def _can_host(node: fx.Node, settings: Settings) -> bool:
    kind = kind_of(node)
    rule = spec().ops.get(kind or "")
    if kind is None or rule is None or rule.weight is None or len(node.users) != 1:
        return False
    weight = node.args[rule.weight]
    if _one_channel(node, kind) or settings(node, kind, rule).skip is not None:
        return False
    return isinstance(weight, fx.Node) and weight.op == "get_attr"


def _without_hosts(placed: QuantPlan, hosts: dict[str, fx.Node]) -> list[QuantPoint]:
    chosen = {op.node for op in placed.ops if op.int8}
    points = []
    for point in placed.points:
        inside = {add for add, host in hosts.items() if add in chosen and host.name == point.node}
        users = tuple(u for u in point.users if u not in inside)
        if users:
            points.append(replace(point, users=users))
    return points


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
