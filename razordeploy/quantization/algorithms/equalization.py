"""Cross-layer equalization: two layers with a ReLU between share their ranges, channel by channel.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from razordeploy.errors import RecipeError
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.algorithms.layers import Layer, layers
from razordeploy.quantization.algorithms.paths import only_reader
from razordeploy.quantization.draft import Draft


@dataclass(frozen=True, kw_only=True)
class CrossLayerEqualization:
    """``s_i = (1 / r2_i) sqrt(r1_i r2_i)``; ``W1 <- W1 / s``, ``b1 <- b1 / s``, ``W2 <- W2 s`` (equations 9 to 11).

    r1_i and r2_i are the largest absolute weights of output channel i of the first and input channel i of the second
    layer. A chain of pairs is repeated until nothing moves. The float model computes what it did before.
    """

    iterations: int = 20
    """Rounds through all pairs, at most."""
    replace_relu6: bool = False
    """True: a ReLU6 between two layers becomes a ReLU, which changes the model where values pass 6 (section 5.1.1)."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise RecipeError(f"CrossLayerEqualization: expected iterations of 1 or more, got {self.iterations}")

    def apply(self, draft: Draft, work: Work) -> None:
        """Change the draft's weights and biases, and calibrate anew."""
        found = list(self._pairs(draft))
        if not found:
            work.notes.append("CrossLayerEqualization: no two layers with nothing but a ReLU between them")
            return
        values = _Values(draft)
        for _ in range(self.iterations):
            moved = max(values.equalize(first, second) for first, second, _ in found)
            if moved < 1e-3:
                break
        values.write()
        for _, _, bounded in found:
            for node in bounded:
                node.target, node.args, node.kwargs = torch.ops.aten.relu.default, node.args[:1], {}
        draft.refresh()
        draft.recalibrate(work.batches())
        work.notes.append(f"CrossLayerEqualization: {len(found)} pairs of layers")

    def _pairs(self, draft: Draft) -> list[tuple[Layer, Layer, list[fx.Node]]]:
        found = []
        for first in layers(draft.captured):
            reached = only_reader(first, through_relu6=self.replace_relu6)
            if reached is not None and all(_is_own(part) for part in (first, reached[0])):
                found.append((first, *reached))
        return found


def _is_own(layer: Layer) -> bool:
    """Nothing else reads the layer's weight and bias."""
    return len(layer.weight.users) == 1 and (layer.bias is None or len(layer.bias.users) == 1)


class _Values:
    """The weights and biases in float64 while they are equalized."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.values: dict[fx.Node, torch.Tensor] = {}

    def __getitem__(self, node: fx.Node) -> torch.Tensor:
        if node not in self.values:
            self.values[node] = self.draft.constant(node).double()
        return self.values[node]

    def equalize(self, first: Layer, second: Layer) -> float:
        """Equalize one pair; return the largest change of a factor from 1, as a logarithm."""
        r1 = first.output_extent(self[first.weight])
        r2 = second.input_extent(self[second.weight])
        s = equalizing_factors(r1, r2)
        self.values[first.weight] = first.scaled_outputs(self[first.weight], 1 / s)
        if first.bias is not None:
            self.values[first.bias] = self[first.bias] / s
        self.values[second.weight] = second.scaled_inputs(self[second.weight], s)
        return float(s.log().abs().max())

    def write(self) -> None:
        """Put the values into the draft; the float model gets them too."""
        for node, value in self.values.items():
            self.draft.set_constant(node, value.float(), equivalent=True)


def equalizing_factors(r1: torch.Tensor, r2: torch.Tensor) -> torch.Tensor:
    """``s = (1 / r2) sqrt(r1 r2)`` (equation 11); 1 where a channel has no range: it is dead, or nobody reads it."""
    s = (r1 * r2).sqrt() / r2
    return torch.where((r1 > 0) & (r2 > 0), s, torch.ones_like(s))
