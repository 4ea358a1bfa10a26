"""The weighted layers of a graph, with what algorithms ask of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from razordeploy.capture.batchnorm import WEIGHT_AXIS
from razordeploy.capture.graph import CapturedModel
from razordeploy.quantization.plan import QuantPlan, QuantPoint

_aten = torch.ops.aten
_LINEAR = _aten.linear.default
_GROUPS_OF_CONVOLUTION, _GROUPS_OF_TRANSPOSED = 6, 6


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution, transposed convolution or linear layer with a constant weight."""

    node: fx.Node
    weight: fx.Node
    """The weight's ``get_attr`` node."""
    transposed: bool
    linear: bool
    groups: int

    @property
    def name(self) -> str:
        """Name of the operation's node."""
        return self.node.name

    @property
    def input(self) -> fx.Node:
        """The activation that it reads."""
        source = self.node.args[0]
        assert isinstance(source, fx.Node)
        return source

    @property
    def bias(self) -> fx.Node | None:
        """The bias's node; None where there is none."""
        found = self.node.args[2] if len(self.node.args) > 2 else None
        return found if isinstance(found, fx.Node) else None

    def per_output(self, weight: torch.Tensor) -> torch.Tensor:
        """View a weight as ``(output channels, inputs of one output)``."""
        if not self.transposed:
            return weight.flatten(1)
        # (in, out / groups, k ...) -> (groups, in / groups, out / groups, k) -> (out, in / groups * k)
        parts = weight.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], -1)
        return parts.transpose(1, 2).flatten(0, 1).flatten(1)

    def scaled_outputs(self, weight: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """The weight with every output channel times its factor, ``(out,)``."""
        if not self.transposed:
            return weight * factors.view(-1, *[1] * (weight.dim() - 1))
        parts = weight.reshape(self.groups, weight.shape[0] // self.groups, *weight.shape[1:])
        shape = (self.groups, 1, weight.shape[1], *[1] * (weight.dim() - 2))
        return (parts * factors.view(shape)).reshape(weight.shape)

    def scaled_inputs(self, weight: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """The weight with everything that multiplies an input channel times that channel's factor, ``(in,)``."""
        if self.transposed:
            return weight * factors.view(-1, *[1] * (weight.dim() - 1))
        if self.groups == 1:
            return weight * factors.view(1, -1, *[1] * (weight.dim() - 2))
        parts = weight.reshape(self.groups, weight.shape[0] // self.groups, *weight.shape[1:])
        shape = (self.groups, 1, weight.shape[1], *[1] * (weight.dim() - 2))
        return (parts * factors.view(shape)).reshape(weight.shape)

    def input_extent(self, weight: torch.Tensor) -> torch.Tensor:
        """``max |w|`` over everything that multiplies an input channel, ``(in,)``."""
        if self.transposed:
            return weight.abs().flatten(1).amax(1)
        if self.groups == 1:
            return weight.abs().transpose(0, 1).flatten(1).amax(1)
        parts = weight.abs().reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], -1)
        return parts.amax((1, 3)).flatten()

    def output_extent(self, weight: torch.Tensor) -> torch.Tensor:
        """``max |w|`` of every output channel, ``(out,)``."""
        return self.per_output(weight).abs().amax(1)

    @property
    def channel_axis(self) -> int:
        """Axis of the output's channels: 1 of a convolution ``(N, C, ...)``, the last of a linear layer."""
        return -1 if self.linear else 1


def layer_of(node: fx.Node) -> Layer | None:
    """``node`` as a layer; None for anything else."""
    if node.op != "call_function" or node.target not in WEIGHT_AXIS or node.kwargs:
        return None
    weight = node.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr" or not isinstance(node.args[0], fx.Node):
        return None
    transposed, linear = WEIGHT_AXIS[node.target] == 1, node.target is _LINEAR
    position = _GROUPS_OF_TRANSPOSED if transposed else _GROUPS_OF_CONVOLUTION
    groups = 1 if linear or len(node.args) <= position else int(node.args[position])  # type: ignore[arg-type]
    return Layer(node=node, weight=weight, transposed=transposed, linear=linear, groups=groups)


def layers(captured: CapturedModel) -> Iterator[Layer]:
    """Every layer, in execution order."""
    for node in captured.graph.nodes:
        found = layer_of(node)
        if found is not None:
            yield found


def weight_points(plan: QuantPlan) -> dict[str, QuantPoint]:
    """Operation -> the point of its weight."""
    return {user: p for p in plan.points if p.kind == "weight" for user in p.users}


def channel_mean(value: torch.Tensor, axis: int) -> torch.Tensor:
    """Mean over all axes but ``axis``, in float64: ``(C,)``."""
    axis %= value.dim()
    return value.double().mean([d for d in range(value.dim()) if d != axis])
