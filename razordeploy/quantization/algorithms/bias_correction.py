"""Bias correction: rounding a layer's weights and inputs shifts the mean of its outputs; the bias can shift it back.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2: with W_q the
rounded weight, ``E[y] - E[y_q] = -(W_q - W) E[x]`` (equation 17), subtracted from the bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from razordeploy.quantization.algorithms.blocks import activation_behind
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.algorithms.layers import Layer, channel_mean, layer_of, weight_points
from razordeploy.quantization.algorithms.walk import Values, Walk
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.qparams import fake_quantize


@dataclass(frozen=True, kw_only=True)
class FastBiasCorrection:
    """Corrects every layer at once, from the weights' rounding error and the float inputs' means (equation 17).

    Borders are treated as if the padding had the mean of the image. One float pass over the samples.
    """

    samples: int = 256
    """Samples that the means are taken over."""

    def apply(self, draft: Draft, work: Work) -> None:
        """Change the draft's biases."""
        quantized = weight_points(draft.plan)
        shifts: list[tuple[Layer, torch.Tensor]] = []
        walk = Walk(draft, work, limit=self.samples, quantized=False)

        def after(node: fx.Node) -> None:
            layer, point = layer_of(node), quantized.get(node.name)
            if layer is None or point is None:
                return
            mean = channel_mean(torch.cat(walk.floats[layer.input]), layer.channel_axis)
            weight = draft.float_constant(layer.weight).double()
            rounded = fake_quantize(draft.constant(layer.weight), draft.params[point.group]).double()
            shifts.append((layer, expected_shift(layer, weight, rounded, mean)))

        walk.run(after=after)
        for layer, shift in shifts:
            add_to_bias(draft, layer, shift)
        draft.refresh()


@dataclass(frozen=True, kw_only=True)
class BiasCorrection:
    """Corrects layer after layer by the measured difference of the outputs' means (section 4.2.1, empirical).

    Each layer reads what the corrected layers before it give, so that shifts which the inputs already carry are
    corrected too. A channel whose error behind the activation function would grow keeps its bias: where clipped
    weights shrink the outputs, the mean in front of a ReLU moves one way and what passes it the other. One pass over
    the samples.
    """

    samples: int = 256
    """Samples that the means are taken over."""

    def apply(self, draft: Draft, work: Work) -> None:
        """Change the draft's biases."""
        quantized = weight_points(draft.plan)
        walk = Walk(draft, work, limit=self.samples)

        def after(node: fx.Node) -> None:
            layer = layer_of(node)
            if layer is None or node.name not in quantized:
                return
            floats, rounded = walk.floats[node], walk.rounded[node]
            shift = _worth(node, layer, floats, rounded)
            add_to_bias(draft, layer, shift)
            walk.rounded[node] = [v + _along(shift, v, layer) for v in rounded]

        walk.run(after=after)
        draft.refresh()


def _worth(node: fx.Node, layer: Layer, floats: Values, rounded: Values) -> torch.Tensor:
    """Difference of the means of every output channel, 0 where it would not lessen the error; ``(out,)``."""
    means = [channel_mean(torch.cat(v), layer.channel_axis) for v in (floats, rounded)]
    shift = means[0] - means[1]
    activate = activation_behind(node)
    gain = torch.zeros_like(shift)
    for expected, found in zip(floats, rounded, strict=True):
        wanted = activate(expected)
        errors = [activate(v) - wanted for v in (found, found + _along(shift, found, layer))]
        before, after = (channel_mean(e.square(), layer.channel_axis) for e in errors)
        gain += (before - after) * len(expected)
    return shift * (gain > 0)


def _along(shift: torch.Tensor, value: torch.Tensor, layer: Layer) -> torch.Tensor:
    shape = [1] * value.dim()
    shape[layer.channel_axis] = -1
    return shift.to(value.dtype).view(shape)


def expected_shift(layer: Layer, weight: torch.Tensor, rounded: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """``(W - W_q) E[x]`` summed over the kernel, ``(out,)``; ``mean`` is E[x] of every input channel, ``(in,)``."""
    error = layer.scaled_inputs(weight - rounded, mean.to(weight.dtype))
    return layer.per_output(error).sum(1)


def add_to_bias(draft: Draft, layer: Layer, shift: torch.Tensor) -> None:
    """Add ``shift``, ``(out,)``, to the bias of a layer, which gets one where it has none."""
    bias = draft.bias_of(layer.node)
    draft.set_constant(bias, (draft.constant(bias).double() + shift.double()).float())
