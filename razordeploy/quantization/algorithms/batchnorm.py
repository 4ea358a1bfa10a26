"""Batch norm re-estimation: mean and variance of every batch norm's input, taken anew from the quantized network.

The captured graph has its batch norms folded, so the new statistics go where the folded ones are: with mean and
deviation of the channel's output in the float (m, d) and the quantized model (m_q, d_q), the normalised output is
``(y_q - m_q) d / d_q + m``. The factor goes into the weight's scale, which leaves its integers as they are, the rest
into the bias (Siddegowda et al., "Neural Network Quantization with AIMET", 2022, section 4.5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import fx

from razordeploy.errors import RecipeError
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.algorithms.layers import Layer, channel_mean, layer_of, weight_points
from razordeploy.quantization.algorithms.walk import Values, Walk
from razordeploy.quantization.draft import Draft

_FOLDED = "_folded_"
"""What the nodes of folded weights start with."""
_LIMIT = 4.0
"""A channel whose deviation changes by more than this factor has next to none: its scale stays."""


@dataclass(frozen=True, kw_only=True)
class BatchNormReestimation:
    """Takes the statistics of every layer that a batch norm was folded into from the quantized model, in order."""

    samples: int = 256
    """Samples that the statistics are taken over."""

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise RecipeError(f"BatchNormReestimation: expected samples of 2 or more, got {self.samples}")

    def apply(self, draft: Draft, work: Work) -> None:
        """Change biases and weight scales."""
        points = weight_points(draft.plan)
        walk = Walk(draft, work, limit=self.samples)
        done: list[str] = []

        def after(node: fx.Node) -> None:
            layer = layer_of(node)
            if layer is None or node.name not in points or not layer.weight.name.startswith(_FOLDED):
                return
            (mean, deviation), (found, spread) = (_moments(v[node], layer) for v in (walk.floats, walk.rounded))
            gain = deviation / spread
            gain = torch.where((gain > 1 / _LIMIT) & (gain < _LIMIT), gain, torch.ones_like(gain))
            gain = _scale_weight(draft, layer, points[node.name].group, gain)
            bias = draft.bias_of(node)
            draft.set_constant(bias, (gain * (draft.constant(bias).double() - found) + mean).float())
            shape = [1] * walk.rounded[node][0].dim()
            shape[layer.channel_axis] = -1
            factor, shift = (v.float().view(shape) for v in (gain, mean - gain * found))
            walk.rounded[node] = [v * factor + shift for v in walk.rounded[node]]
            done.append(node.name)

        walk.run(after=after)
        draft.refresh()
        work.notes.append(f"BatchNormReestimation: {len(done)} batch norms")


def _moments(values: Values, layer: Layer) -> tuple[torch.Tensor, torch.Tensor]:
    joined = torch.cat(values).double()
    mean = channel_mean(joined, layer.channel_axis)
    square = channel_mean(joined.square(), layer.channel_axis)
    return mean, (square - mean.square()).clamp(min=0).sqrt()


def _scale_weight(draft: Draft, layer: Layer, group: str, gain: torch.Tensor) -> torch.Tensor:
    """Multiply scale and weight by ``gain``, ``(out,)``; ones where the weight has no scale of each output."""
    grid = draft.params[group]
    if grid.scale.shape != gain.shape or len(layer.weight.users) != 1:
        return torch.ones_like(gain)
    gain = gain.float()
    draft.params[group] = replace(grid, scale=grid.scale * gain)
    draft.set_constant(layer.weight, layer.scaled_outputs(draft.constant(layer.weight), gain))
    return gain.double()
